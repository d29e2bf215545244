"""The command line: one file per noun, each exporting `cli`; `main` loads a noun's file when it is called."""

import pytest

from signal_router.testing.murmur2 import murmur2, murmur2_partition


@pytest.mark.parametrize(
    ("data", "signed"),
    [
        # org.apache.kafka.common.utils.UtilsTest.testMurmur2
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_hashes_are_those_of_the_java_client(data, signed):
    assert murmur2(data) == signed % (1 << 32)


def test_the_sign_bit_does_not_choose_a_partition():
    assert murmur2_partition(b"21", 5) == (-973932308 & 0x7FFFFFFF) % 5

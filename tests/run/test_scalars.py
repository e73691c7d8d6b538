"""Event files: the check sum against known values, and a round trip through the project's own reader."""
from alignment.log_reader.events import read_events
from jt_nanodet.run.scalars import ScalarWriter, masked_crc


def test_check_sum():
    # CRC-32C of "123456789" is 0xE3069283 (RFC 3720, B.4); masking is TFRecord's
    crc = 0xE3069283
    assert masked_crc(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_round_trip(tmp_path):
    writer = ScalarWriter(tmp_path)
    writer.add({"a/b": 0.5, "c": -2.25}, 0)
    writer.add({"a/b": 1e-8}, 300)
    writer.close()
    (path,) = tmp_path.iterdir()
    run = read_events([path], tmp_path)
    assert run.lines["scalars"] == 3 and "cut" not in run.lines

import struct

from datacat.host import macos


def test_the_start_of_a_process_is_read_out_of_proc_bsdinfo():
    info = bytearray(136)
    struct.pack_into("=QQ", info, 120, 1_700_000_000, 250_000)
    assert macos.parse_bsdinfo(bytes(info)) == 1_700_000_000_250_000


def test_the_request_for_blocks_has_the_layout_of_struct_fstore():
    request = macos.pack_fstore(macos.F_ALLOCATEALL, 1 << 20)
    assert len(request) == 32
    assert struct.unpack("=Iiqqq", request) == (4, 3, 0, 1 << 20, 0)


def test_what_only_macos_knows_is_empty_elsewhere():
    assert macos.pid_namespace() == 0
    assert isinstance(macos.boot_id(), str)
    assert macos.asleep_s() >= 0.0

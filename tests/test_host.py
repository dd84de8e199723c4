import os
import resource

import pytest

from sidecar.host import cuda_device, read_host

CPUINFO = "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 avx512_vnni sse\n"
UNLIMITED_V1 = "9223372036854771712"


@pytest.fixture
def host_of(tmp_path):
    """A function that reads the facts from files written for the test, on eight processors."""

    def read(affinity=range(8), probe=None, **files):
        files = {"proc/cpuinfo": CPUINFO, "proc/meminfo": "MemTotal:  1000 kB\n"} | files
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return read_host(tmp_path, affinity, probe)

    return read


def test_without_cgroups_the_affinity_counts(host_of):
    """Without cgroups, cores are those of the affinity, and memory is all of the host's."""
    host = host_of(affinity={2, 5, 6})
    assert (host.cores, host.memory_bytes) == (3, 1000 * 1024)


def test_without_meminfo_the_system_says_how_much_memory_there_is(host_of):
    """If a sandbox hides /proc/meminfo, the system call gives the memory."""
    host = host_of(**{"proc/meminfo": ""})
    assert host.memory_bytes == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_process_without_descriptors_learns_no_facts():
    """Out of descriptors, reading raises an error instead of taking files for missing."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            read_host(affinity={0})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_the_processor_is_told_by_its_name_and_flags(host_of):
    """The facts have the processor's name and, of its flags, the relevant ones."""
    host = host_of()
    assert (host.cpu_model, host.isa) == ("Some CPU", {"avx2", "avx512_vnni"})


def test_every_flag_that_decides_is_told(host_of):
    """All relevant flags are read, from the first processor listed."""
    flags = "avx2 avx512f avx512_vnni avx_vnni amx_int8"
    cpuinfo = f"model name : One\nflags : {flags} sse\n\nmodel name : Two\nflags : sse\n"
    host = host_of(**{"proc/cpuinfo": cpuinfo})
    assert (host.cpu_model, host.isa) == ("One", set(flags.split()))


def test_arm_calls_them_features(host_of):
    """On Arm, flags are read from `Features`, and the missing model name is "unknown"."""
    host = host_of(**{"proc/cpuinfo": "Features\t: fp asimd asimddp i8mm\n"})
    assert (host.cpu_model, host.isa) == ("unknown", {"asimddp", "i8mm"})


@pytest.mark.parametrize(("quota", "cores"), [("150000 100000", 2), ("max 100000", 8)])
def test_a_quota_of_cgroup_v2_is_rounded_up(host_of, quota, cores):
    """A quota of one and a half processors allows two threads."""
    files = {"proc/self/cgroup": "0::/app\n", "sys/fs/cgroup/app/cpu.max": quota}
    assert host_of(**files).cores == cores


def test_a_parent_cgroup_limits_too(host_of):
    """The tightest limit of a cgroup and its parents applies."""
    host = host_of(
        **{
            "proc/self/cgroup": "0::/slice/app\n",
            "sys/fs/cgroup/slice/app/cpu.max": "max 100000",
            "sys/fs/cgroup/slice/cpu.max": "300000 100000",
            "sys/fs/cgroup/slice/app/memory.max": "max",
            "sys/fs/cgroup/slice/memory.max": "4096",
        }
    )
    assert (host.cores, host.memory_bytes) == (3, 4096)


@pytest.mark.parametrize(("quota", "cores"), [("50000", 1), ("-1", 8)])
def test_cgroup_v1(host_of, quota, cores):
    """With cgroup v1, half a processor allows one thread, and -1 is no limit."""
    host = host_of(
        **{
            "proc/self/cgroup": "5:cpuacct,cpu:/app\n4:memory:/app\n1:name=systemd:/\n0::/\n",
            "sys/fs/cgroup/cpu/app/cpu.cfs_quota_us": quota,
            "sys/fs/cgroup/cpu/app/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/app/memory.limit_in_bytes": UNLIMITED_V1,
        }
    )
    assert (host.cores, host.memory_bytes) == (cores, 1000 * 1024)


def test_in_a_container_the_mounts_root_counts(host_of):
    """In a container, where the path in /proc does not exist, the mount's root applies."""
    host = host_of(
        **{"proc/self/cgroup": "0::/docker/abc\n", "sys/fs/cgroup/cpu.max": "100000 100000"}
    )
    assert host.cores == 1


def test_a_cuda_device_is_looked_for_where_the_driver_is(host_of):
    """A CUDA device is only probed for if NVIDIA's driver is loaded."""
    asked = []

    def probe():
        asked.append(True)
        return "Some GPU"

    assert host_of(probe=probe).cuda is None
    assert not asked
    driver = {"proc/driver/nvidia/version": "NVRM version: 1\n"}
    assert host_of(probe=probe, **driver).cuda == "Some GPU"
    assert host_of(probe=None, **driver).cuda is None


def test_there_is_no_cuda_device_without_the_libraries(monkeypatch):
    """Without torch, there is no CUDA device, and no error."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert cuda_device() is None


def test_the_cuda_device_is_torchs(monkeypatch):
    """The CUDA device is the one that torch sees, if any."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cuda_device() is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    assert cuda_device() == "Some GPU"


def test_this_host_can_be_read():
    """The facts of the test's own host can be read."""
    host = read_host()
    assert host.cores >= 1
    assert host.memory_bytes > 0


@pytest.mark.parametrize("stated", [None, "3"])
def test_torch_is_asked_with_one_thread(monkeypatch, stated):
    """OMP_NUM_THREADS is set to 1 before importing torch, unless the user has set it."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if stated:
        monkeypatch.setenv("OMP_NUM_THREADS", stated)
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cuda_device() is None
    assert os.environ["OMP_NUM_THREADS"] == (stated or "1")


def test_limits_of_cgroup_v1_count(host_of):
    """With cgroup v1, memory and CPU limits apply, also with a period other than 100 ms."""
    host = host_of(
        **{
            "proc/self/cgroup": "5:cpuacct,cpu:/app\n4:memory:/app\n",
            "sys/fs/cgroup/cpu/app/cpu.cfs_quota_us": "150000",
            "sys/fs/cgroup/cpu/app/cpu.cfs_period_us": "50000",
            "sys/fs/cgroup/memory/app/memory.limit_in_bytes": "65536",
        }
    )
    assert (host.cores, host.memory_bytes) == (3, 65_536)


def test_another_controllers_limits_do_not_count(host_of):
    """The limits in a v1 hierarchy of another controller are ignored."""
    host = host_of(
        **{
            "proc/self/cgroup": "7:cpuset:/app\n3:name=systemd:/app\n",
            "sys/fs/cgroup/app/cpu.max": "100000 100000",
            "sys/fs/cgroup/app/memory.max": "4096",
        }
    )
    assert (host.cores, host.memory_bytes) == (8, 1000 * 1024)

//! What a hostile consumer, backend, local user, web page or a bad day may try: nothing comes of it, and
//! the worker does the next job. One file for each attacker's means.

mod archives;
mod bad_day;
mod damage;
mod disk;
mod downloads;
mod floods;
mod lingers;
mod memory;
mod offers;
mod processes;
mod reads;
mod registration;
mod results;
mod script_url;
mod secrets;
mod shown;
mod state_dir;
mod transport;
mod user;

use std::fs;

use serde_json::Value;

/// Tells which of the paths it can see, by whatever means.
const SEES: &str = r#"
import json, os, sys
seen = []
for path in sys.argv[1:]:
    for look in (os.stat, os.listdir, lambda path: open(path).read()):
        try:
            look(path)
            seen.append(path)
        except OSError:
            pass
print(json.dumps({'result': {'seen': sorted(set(seen))}}))
"#;

/// Tries what takes a privilege, and tells what was done.
const PRIVILEGES: &str = r"
import json, os, socket, subprocess
status = dict(line.split(':', 1) for line in open('/proc/self/status'))
tried = []
for what in (['unshare', '-U', 'true'], ['mount', '-t', 'tmpfs', 'x', '/tmp'], ['/usr/sbin/chroot', '/tmp', '/x'],
             ['su', '-c', 'true'], ['hostname', 'x'], ['mknod', '/tmp/x', 'c', '1', '1']):
    if subprocess.run(what, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0:
        tried.append(what[0])
try:
    os.setuid(0)
    tried.append('setuid')
except OSError:
    pass
capabilities = {name: int(status[name], 16) for name in ('CapInh', 'CapPrm', 'CapEff', 'CapAmb')}
for kind in (40, 38, 17):
    try:
        socket.socket(kind, socket.SOCK_STREAM if kind == 40 else socket.SOCK_RAW)
        tried.append(f'socket {kind}')
    except OSError:
        pass
print(json.dumps({'result': {'done': tried, 'uid': os.getuid(), 'groups': os.getgroups(),
                             'has': sum(capabilities.values()), 'new': int(status['NoNewPrivs'])}}))
";

/// Asks the kernel itself for what it should refuse, in a way that does no harm where it does not, and tells
/// what it did.
const CALLS: &str = r"
import ctypes, json, os, platform, resource, signal, sys, time
libc = ctypes.CDLL(None, use_errno=True)
arm = platform.machine() == 'aarch64'
numbers = {'bpf': (321, 280), 'keyctl': (250, 219), 'add_key': (248, 217), 'request_key': (249, 218),
           'perf_event_open': (298, 241), 'userfaultfd': (323, 282), 'io_uring_setup': (425, 425),
           'fsopen': (430, 430), 'open_tree': (428, 428), 'move_mount': (429, 429), 'mount_setattr': (442, 442),
           'clone3': (435, 435), 'pivot_root': (155, 41), 'finit_module': (313, 273), 'kexec_load': (246, 104),
           'syslog': (103, 116), 'vhangup': (153, 58), 'quotactl': (179, 60), 'lookup_dcookie': (212, 18)}
space = ctypes.create_string_buffer(4096)
def call(name, *args):
    return libc.syscall(numbers[name][arm], *args)
def forked(what):
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if what() not in (-1, None) else 1)
        except BaseException:
            os._exit(1)
    return 0 if os.waitpid(pid, 0)[1] == 0 else -1
class Time(ctypes.Structure):
    _fields_ = [('seconds', ctypes.c_long), ('nanoseconds', ctypes.c_long)]
now = Time(int(time.time()), 0)
tries = {
    'bpf': lambda: call('bpf', 0, space, 48),
    'keyctl': lambda: call('keyctl', 0, -3, 1),
    'add_key': lambda: call('add_key', b'user', b'x', b'x', 1, -3),
    'request_key': lambda: call('request_key', b'user', b'x', None, -3),
    'perf_event_open': lambda: call('perf_event_open', space, 0, -1, -1, 0),
    'userfaultfd': lambda: call('userfaultfd', 1),
    'io_uring_setup': lambda: call('io_uring_setup', 1, space),
    'fsopen': lambda: call('fsopen', b'tmpfs', 0),
    'open_tree': lambda: call('open_tree', -100, b'/tmp', 1),
    'move_mount': lambda: call('move_mount', -100, b'/tmp', -100, b'/output', 0),
    'mount_setattr': lambda: call('mount_setattr', -100, b'/', 0, space, 32),
    'clone3': lambda: call('clone3', space, 8),
    'pivot_root': lambda: call('pivot_root', b'/tmp', b'/tmp'),
    'finit_module': lambda: call('finit_module', 0, b'', 0),
    'kexec_load': lambda: call('kexec_load', 0, 0, 0, 0),
    'syslog': lambda: call('syslog', 3, space, 4096),
    'vhangup': lambda: call('vhangup'),
    'quotactl': lambda: call('quotactl', 0x800002, None, 0, space),
    'acct': lambda: libc.acct(b'/tmp/acct'),
    'swapon': lambda: libc.swapon(b'/tmp/x', 0),
    'mount': lambda: libc.mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None),
    'remount': lambda: libc.mount(None, b'/', None, 32 | 4096, None),
    'umount': lambda: libc.umount2(b'/input', 2),
    'setns': lambda: libc.setns(os.open('/proc/1/ns/net', os.O_RDONLY), 0),
    'open_by_handle_at': lambda: libc.open_by_handle_at(-100, space, 0),
    'ptrace the first': lambda: libc.ptrace(16, 1, 0, 0),
    'clock_settime': lambda: libc.clock_settime(0, ctypes.byref(now)),
    'sethostname': lambda: libc.sethostname(b'x', 1),
    'setdomainname': lambda: libc.setdomainname(b'x', 1),
    'nicer': lambda: libc.setpriority(0, 0, -5),
    'real time': lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)) or 0,
    'more files': lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20)) or 0,
    'a core': lambda: resource.setrlimit(resource.RLIMIT_CORE, (1, 1)) or 0,
    'ports': lambda: libc.iopl(3) if not arm else -1,
    'kcore': lambda: open('/proc/kcore', 'rb').fileno(),
    'kmsg': lambda: open('/proc/kmsg', 'rb').fileno(),
    'sysfs': lambda: len(os.listdir('/sys')),
    'groups': lambda: len(os.listdir('/sys/fs/cgroup')),
}
for bit, name in enumerate(['newtime 0x80', 'newns 0x20000', 'newcgroup 0x2000000', 'newuts 0x4000000',
                            'newipc 0x8000000', 'newuser 0x10000000', 'newpid 0x20000000', 'newnet 0x40000000']):
    tries[name] = lambda flag=int(name.split()[1], 16): libc.unshare(flag)
done = [name for name, what in tries.items() if forked(what) == 0]
print(json.dumps({'result': {'done': done}}))
";

/// Every process starts another, and goes on doing so.
const BOMB: &str = "
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
";

/// The processes whose command line holds this.
fn living(mark: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| {
        let line = fs::read(process.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(mark)).collect()
}

fn reason(completion: &Value) -> &str {
    completion["errorDetails"]["reason"].as_str().unwrap_or("none")
}

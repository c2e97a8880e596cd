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

/// Every process starts another, and goes on doing so.
const BOMB: &str = "
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
";

fn reason(completion: &Value) -> &str {
    completion["errorDetails"]["reason"].as_str().unwrap_or("none")
}

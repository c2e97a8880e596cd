//! What a sandboxed program may not ask of the kernel, as the kernel reads it: a filter of system calls.
//!
//! Namespaces do not reach everything: sockets to a virtual machine's host know none, and each program
//! could make namespaces of its own, in which it has every privilege to try the kernel with. Whatever
//! else is refused here takes a privilege anyway, or is kept from those whom nobody knows everywhere.

/// One instruction, as in `linux/filter.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    code: u16,
    /// Steps to leave out if it is so, and if not.
    yes: u8,
    no: u8,
    value: u32,
}

const LOAD: u16 = 0x20;
const IS: u16 = 0x15;
const HAS_ANY: u16 = 0x45;
const IS_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Where the kernel puts what is asked: the call, the architecture, and the low half of the first argument.
const CALL: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENT: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const REFUSE: u32 = 0x0005_0000;

#[cfg(target_arch = "x86_64")]
const OURS: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const OURS: Option<u32> = Some(0xc000_00b7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const OURS: Option<u32> = None;

/// The same architecture's other way to count its calls, on x86.
const X32: u32 = 0x4000_0000;

/// What makes a namespace, among what `clone` and `unshare` are asked for.
const NAMESPACES: u32 = 0x7e02_0000;

/// Kinds of socket: within the machine, IP of both versions, and questions to the kernel.
const SOCKETS: [u32; 4] = [1, 2, 10, 16];

const REFUSED: [libc::c_long; 37] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// The filter, or nothing where its numbers are not known.
pub(crate) fn filter() -> Option<Vec<u8>> {
    let mut steps = vec![load(ARCHITECTURE), step(IS, 1, 0, OURS?), ret(KILL), load(CALL)];
    // A call's two halves: what it is, and what becomes of it.
    let when = |code, value, becomes| [step(code, 0, 1, value), ret(becomes)];
    if cfg!(target_arch = "x86_64") {
        steps.extend(when(IS_AT_LEAST, X32, refuse(libc::EPERM)));
    }
    for call in REFUSED {
        steps.extend(when(IS, number(call), refuse(libc::EPERM)));
    }
    // Its flags are out of sight; the C library does without it.
    steps.extend(when(IS, number(libc::SYS_clone3), refuse(libc::ENOSYS)));
    for call in [libc::SYS_clone, libc::SYS_unshare] {
        let namespaces = [step(HAS_ANY, 0, 1, NAMESPACES), ret(refuse(libc::EPERM)), ret(ALLOW)];
        steps.extend([step(IS, 0, 4, number(call)), load(ARGUMENT)]);
        steps.extend(namespaces);
    }
    let known = SOCKETS.map(|kind| [step(IS, 0, 1, kind), ret(ALLOW)]);
    steps.extend([step(IS, 0, 10, number(libc::SYS_socket)), load(ARGUMENT)]);
    steps.extend(known.as_flattened());
    steps.extend([ret(refuse(libc::EAFNOSUPPORT)), ret(ALLOW)]);
    Some(steps.into_iter().flat_map(bytes).collect())
}

fn step(code: u16, yes: u8, no: u8, value: u32) -> Step {
    Step { code, yes, no, value }
}

fn load(from: u32) -> Step {
    step(LOAD, 0, 0, from)
}

fn ret(verdict: u32) -> Step {
    step(RETURN, 0, 0, verdict)
}

#[expect(clippy::cast_sign_loss, reason = "an error's number is above 0")]
fn refuse(error: i32) -> u32 {
    REFUSE | error as u32
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number")]
fn number(call: libc::c_long) -> u32 {
    call as u32
}

fn bytes(step: Step) -> [u8; 8] {
    let Step { code, yes, no, value } = step;
    let ([a, b], [c, d, e, f]) = (code.to_ne_bytes(), value.to_ne_bytes());
    [a, b, yes, no, c, d, e, f]
}

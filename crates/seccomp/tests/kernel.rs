//! Filters on the real kernel.
//!
//! A filter without `TSYNC` holds for the thread that loads it, so each test spends one
//! thread. Needs the right to load filters (root); skips, and says so, without it.

use carrack_seccomp::{Arch, compile, syscall_names, syscall_number};
use carrack_spec::runtime::{Seccomp, SeccompArg, SeccompRule};
use carrack_sys::seccomp::{SockFilter, load};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// Runs `body` in a thread under the filter of a profile; `None` when it cannot load.
fn under<T: Send + 'static>(profile: Seccomp, body: fn() -> T) -> Option<T> {
    let program = compile(&profile, Arch::native()).unwrap();
    let instructions: Vec<SockFilter> = (program.instructions.iter())
        .map(|i| SockFilter {
            code: i.code,
            jt: i.jt,
            jf: i.jf,
            k: i.k,
        })
        .collect();
    let thread = std::thread::spawn(
        move || match load(&instructions, u64::from(program.flags)) {
            Ok(_) => Some(body()),
            Err(error) => {
                println!("SKIP: cannot load a filter: {error}");
                None
            }
        },
    );
    thread.join().unwrap()
}

fn deny(names: &[&str], args: Vec<SeccompArg>) -> Seccomp {
    Seccomp {
        default_action: "SCMP_ACT_ALLOW".into(),
        syscalls: vec![SeccompRule {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            action: "SCMP_ACT_ERRNO".into(),
            errno_ret: Some(libc::EXDEV as u32),
            args,
        }],
        ..Seccomp::default()
    }
}

#[test]
fn a_denied_call_returns_the_errno_of_its_rule() {
    let profile = deny(&["chdir", "mkdir", "mkdirat"], Vec::new());
    let result = under(profile, || {
        let denied = std::env::set_current_dir("/").map_err(|e| e.raw_os_error());
        let also = std::fs::create_dir("/nonexistent/x").map_err(|e| e.raw_os_error());
        let allowed = std::fs::metadata("/").is_ok();
        (denied, also, allowed)
    });
    if let Some(result) = result {
        let errno = Err(Some(libc::EXDEV));
        assert_eq!(result, (errno, errno, true));
    }
}

#[test]
fn conditions_see_the_arguments_of_the_call() {
    let inet = SeccompArg {
        index: 0,
        value: libc::AF_INET as u64,
        value_two: 0,
        op: "SCMP_CMP_EQ".into(),
    };
    let result = under(deny(&["socket"], vec![inet]), || {
        let inet = std::net::UdpSocket::bind("127.0.0.1:0").map(drop);
        let unix = std::os::unix::net::UnixDatagram::unbound().map(drop);
        (inet.map_err(|e| e.raw_os_error()), unix.is_ok())
    });
    if let Some(result) = result {
        assert_eq!(result, (Err(Some(libc::EXDEV)), true));
    }
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    // Everything before openat2 is allowed, but for one call. The default is EPERM.
    let first_new = syscall_number(Arch::native(), "openat2").unwrap();
    let known = |name: &&str| {
        *name != "chdir" && syscall_number(Arch::native(), name).is_some_and(|n| n < first_new)
    };
    let profile = Seccomp {
        default_action: "SCMP_ACT_ERRNO".into(),
        syscalls: vec![SeccompRule {
            names: syscall_names().filter(known).map(str::to_owned).collect(),
            action: "SCMP_ACT_ALLOW".into(),
            ..SeccompRule::default()
        }],
        ..Seccomp::default()
    };
    let result = under(profile, || {
        let (flags, mode) = (OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let newer = openat2(CWD, "/", flags, mode, ResolveFlags::empty()).map(drop);
        let denied = std::env::set_current_dir("/").map_err(|e| e.raw_os_error());
        (newer, denied)
    });
    if let Some(result) = result {
        assert_eq!(result, (Err(Errno::NOSYS), Err(Some(libc::EPERM))));
    }
}

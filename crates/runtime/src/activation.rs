//! Socket activation (sd_listen_fds(3)): how many descriptors from 3 on the
//! service manager passed to this program.

use std::ffi::OsStr;

/// More descriptors than this are a mistake.
const DESCRIPTORS_MAX: u32 = 1024;

/// The number of descriptors that are meant for this process.
pub fn descriptors() -> u32 {
    let Some(count) = std::env::var_os("LISTEN_FDS") else {
        return 0;
    };
    let pid = std::env::var_os("LISTEN_PID");
    meant_for(std::process::id(), pid.as_deref(), Some(&count))
}

fn meant_for(me: u32, pid: Option<&OsStr>, count: Option<&OsStr>) -> u32 {
    let number = |text: Option<&OsStr>| text?.to_str()?.parse::<u32>().ok();
    if number(pid) != Some(me) {
        return 0;
    }
    number(count)
        .filter(|count| *count <= DESCRIPTORS_MAX)
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_meant_for_this_process_counts() {
        let check = |pid: &str, count: &str| meant_for(7, Some(pid.as_ref()), Some(count.as_ref()));
        assert_eq!(check("7", "2"), 2);
        assert_eq!(check("8", "2"), 0);
        assert_eq!(check("7", "-1"), 0);
        assert_eq!(check("7", "many"), 0);
        assert_eq!(check("7", "4000000"), 0);
        assert_eq!(meant_for(7, None, Some("2".as_ref())), 0);
    }
}

//! What the guest's shell runs.

use std::path::Path;

use super::stage::Program;

/// Seconds that one test program may take in the guest.
const PROGRAM_SECONDS_MAX: u32 = 900;

/// How the line before a program's output starts.
pub const PROGRAM: &str = "-- ";

/// The checkout at its own path, then each program; the status is the number of programs
/// that failed, at most 100.
pub fn script(root: &Path, module: &str, programs: &[&Program], args: &[String]) -> String {
    let root = quote(&root.display().to_string());
    let args: Vec<String> = args.iter().map(|arg| quote(arg)).collect();
    let mut script = format!(
        "failed=0; export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root\n\
         mkdir -p {root} && mount --bind /host {root} && cd {root} || exit 101\n\
         uname -sr; systemctl is-system-running --wait; cat /sys/kernel/security/lsm; echo\n"
    );
    if module == "selinux" {
        script.push_str("setenforce 1; echo \"SELinux: $(getenforce)\"\n");
    } else {
        script.push_str("echo \"AppArmor: $(cat /sys/module/apparmor/parameters/enabled)\"\n");
    }
    for program in programs {
        let dir = quote(&program.dir.display().to_string());
        let file = quote(&program.file.display().to_string());
        script.push_str(&format!(
            "printf '\\n{PROGRAM}%s, after %s s\\n' {name} $SECONDS; cd {dir}\n\
             CARGO_MANIFEST_DIR={dir} timeout {PROGRAM_SECONDS_MAX} {file} --show-output {} \
             || {{ code=$?; failed=$((failed+1)); echo \"-- \"{name}\" ended with $code\"; }}\n",
            args.join(" "),
            name = quote(&program.name),
        ));
    }
    script.push_str(
        "echo \"-- end, after $SECONDS s\"; cd /\n\
         left=$(find /sys/fs/cgroup -type d \\( -name '*ckt-*' -o -name '*carrack*' \\); \
         grep -o ' [^ ]*/ckt-[^ ]*' /proc/self/mountinfo)\n\
         [ -z \"$left\" ] || { echo \"left behind: $left\"; failed=$((failed+1)); }\n\
         exit $((failed > 100 ? 100 : failed))\n",
    );
    script
}

/// A word for the shell.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::{quote, script};
    use std::path::Path;

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's"), r"'it'\''s'");
    }

    #[test]
    fn the_guest_mounts_the_checkout_where_it_is_here() {
        let script = script(Path::new("/a/b c"), "selinux", &[], &[]);
        assert!(script.contains("mount --bind /host '/a/b c'"));
        assert!(script.contains("setenforce 1"));
    }
}

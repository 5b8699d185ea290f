//! The kit against a runtime that is known to work (Debian's runc): a bundle that
//! runs there is a fair test of ours.

use carrack_testkit::{Bundle, ConsoleSocket, Runtime, require, skip};
use serde_json::json;

fn runc() -> Result<Runtime, carrack_testkit::Skip> {
    skip::root()?;
    Ok(Runtime::new(skip::program("runc")?))
}

#[test]
fn the_default_bundle_runs_and_nothing_is_left() {
    let runtime = require!(runc());
    let mut bundle = require!(Bundle::busybox());
    bundle
        .shell("hostname; exit 7")
        .set("/hostname", json!("kit"));
    let container = runtime.container(&bundle);
    container.run().code_is(7).stdout_is("kit\n");
    container.assert_nothing_left();
}

#[test]
fn a_container_lives_and_is_found_by_the_leak_check() {
    let runtime = require!(runc());
    let mut bundle = require!(Bundle::busybox());
    bundle.args(["sleep", "100"]);
    let container = runtime.container(&bundle);
    container.create().ok();
    assert_eq!(container.status(), "created");
    container.start().ok();
    container.wait_status("running");
    container
        .exec(&["echo", "inside"])
        .ok()
        .stdout_is("inside\n");
    let left = carrack_testkit::leaks::now(container.id(), bundle.path());
    assert!(
        left.contains(&format!("process {}", container.pid())),
        "{left:?}"
    );
    container.kill("KILL").ok();
    container.wait_status("stopped");
    container.delete(false).ok();
    container.assert_nothing_left();
}

#[test]
fn a_terminal_comes_over_the_console_socket() {
    let runtime = require!(runc());
    let mut bundle = require!(Bundle::busybox());
    bundle
        .shell("tty; read word; echo got $word")
        .set("/process/terminal", json!(true));
    let console = ConsoleSocket::new();
    let container = runtime.container(&bundle);
    let socket = console.path().display().to_string();
    container.create_with(&["--console-socket", &socket]).ok();
    let (mut terminal, _name) = console.accept();
    container.start().ok();
    terminal.expect("/dev/pts/0");
    terminal.type_text("this\n");
    terminal.expect("got this");
    container.wait_status("stopped");
    container.delete(false).ok();
    container.assert_nothing_left();
}

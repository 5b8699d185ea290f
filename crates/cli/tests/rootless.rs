//! Images and containers of an ordinary user.

mod world;

use carrack_testkit::runtime::{Output, finish};
use carrack_testkit::{DockerRegistry, Skip, Terminal, User, require, skip};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use world::World;

/// A user with a copy of `carrack`, which need not be able to see the build's directory.
struct Person {
    user: User,
    carrack: PathBuf,
}

impl Person {
    fn new(user: User) -> Self {
        let carrack = user.home().join("carrack");
        std::fs::copy(env!("CARGO_BIN_EXE_carrack"), &carrack).unwrap();
        Self { user, carrack }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.user.command(&self.carrack);
        command.args(args);
        command
    }

    fn carrack(&self, args: &[&str]) -> Output {
        finish(&mut self.command(args))
    }

    fn layers(&self) -> PathBuf {
        self.user.home().join(".local/share/carrack/layers")
    }
}

#[test]
fn a_user_with_subordinate_ids_keeps_images_with_all_their_owners() {
    let world = require!(World::new());
    let registry = require!(DockerRegistry::start(""));
    let person = Person::new(require!(User::with_subordinate_ids()));
    let files = world.path("files");
    std::fs::create_dir(&files).unwrap();
    std::fs::write(files.join("secret"), "x").unwrap();
    let script = "chown 33:44 secret && chmod 600 secret && mkdir d && chown 7:7 d && chmod 700 d";
    finish(Command::new("sh").args(["-c", script]).current_dir(&files)).ok();
    let tar = person.user.home().join("files.tar").display().to_string();
    let from = files.display().to_string();
    finish(Command::new("tar").args(["-C", &from, "-cf", &tar, "."])).ok();
    world.carrack(&["import", "-q", &tar, "owners:v1"]).ok();
    let name = format!("{}/owners:v1", registry.host);
    let digest = world
        .carrack(&["push", "-q", "owners:v1", &name])
        .ok()
        .stdout;

    person.carrack(&["pull", "-q", &name]).ok();
    let line = ["images", "--format", "{{.Repository}}:{{.Tag}}"];
    person.carrack(&line).ok().stdout_is(&format!("{name}\n"));
    // The owners are the user's subordinate ids.
    let first = u32::try_from(person.user.subordinate_first().unwrap()).unwrap();
    let layer = std::fs::read_dir(person.layers()).unwrap().next().unwrap();
    let secret = layer.unwrap().path().join("fs/secret");
    use std::os::unix::fs::MetadataExt;
    let owner = secret.metadata().unwrap();
    assert_eq!((owner.uid(), owner.gid()), (first + 32, first + 43));
    person
        .carrack(&["system", "check"])
        .ok()
        .stdout_has("nothing wrong");

    // Everything comes out again as it was.
    let to = format!("{}/again:v1", registry.host);
    person
        .carrack(&["push", "-q", &name, &to])
        .ok()
        .stdout_is(&digest);
    let archive = person.user.home().join("saved.tar").display().to_string();
    person.carrack(&["save", "-o", &archive, &name]).ok();
    person.carrack(&["rmi", &name]).ok();
    assert_eq!(std::fs::read_dir(person.layers()).unwrap().count(), 0);
    person.carrack(&["load", "-q", "-i", &archive]).ok();
    person.carrack(&["import", "-q", &tar, "mine:v1"]).ok();
    let layout = format!("oci:{}:x", person.user.home().join("layout").display());
    person.carrack(&["image", "copy", "-q", &to, &layout]).ok();
    person
        .carrack(&["manifest", "create", "list", "mine:v1"])
        .ok();
    let list = format!("{}/list:v1", registry.host);
    person
        .carrack(&["manifest", "push", "-q", "list", &list])
        .ok();

    // What there is not yet says so.
    person
        .carrack(&["image", "mount", "mine:v1"])
        .code_is(125)
        .fails_with("unshare");
    person.carrack(&["manifest", "rm", "list"]).ok();
    person.carrack(&["rmi", "-a"]).ok();
    person.carrack(&["system", "prune", "-af"]).ok();
    assert_eq!(std::fs::read_dir(person.layers()).unwrap().count(), 0);
}

#[test]
fn a_user_without_subordinate_ids_is_told_what_is_missing() {
    let world = require!(World::new());
    let person = Person::new(require!(User::plain()));
    let archive = person.user.home().join("a.tar").display().to_string();
    world
        .carrack(&["save", "-o", &archive, "busybox:test"])
        .ok();
    let mut load = person.command(&["load", "-i", &archive]);
    finish(&mut load).code_is(125).fails_with("/etc/subuid");
    person.carrack(&["images"]).ok();
}

/// A user with the image `busybox:test` and a copy of the runtime.
fn with_busybox(world: &World) -> Result<Person, Skip> {
    let runtime = Path::new(env!("CARGO_BIN_EXE_carrack")).with_file_name("carrack-runtime");
    skip::exists(runtime.to_str().unwrap())?;
    let person = Person::new(User::with_subordinate_ids()?);
    std::fs::copy(runtime, person.user.home().join("carrack-runtime")).unwrap();
    let archive = person.user.home().join("a.tar").display().to_string();
    world
        .carrack(&["save", "-o", &archive, "busybox:test"])
        .ok();
    person.carrack(&["load", "-q", "-i", &archive]).ok();
    Ok(person)
}

#[test]
fn an_ordinary_user_runs_containers() {
    let world = require!(World::new());
    let person = require!(with_busybox(&world));
    let run = |flags: &[&str], command: &str| {
        let image = ["busybox:test", "sh", "-c", command];
        person.carrack(&[&["run", "--rm"], flags, &image].concat())
    };
    person
        .carrack(&["run", "--rm", "busybox:test"])
        .ok()
        .stdout_is("default\n");
    run(&[], "exit 7").code_is(7);
    run(&["-e", "A=b"], "echo $A; id -u")
        .ok()
        .stdout_is("b\n0\n");
    run(&["--user", "app"], "id -u; id -g")
        .ok()
        .stdout_is("1000\n1001\n");
    run(&["--read-only"], "echo x > /x").fails_with("Read-only");
    run(&["--network", "host"], "ls /sys/class/net")
        .ok()
        .stdout_has("lo");
    // What root inside writes outside is the user's.
    let volume = format!("{}:/home", person.user.home().display());
    run(&["-v", &volume], "echo x > /home/made").ok();
    use std::os::unix::fs::MetadataExt;
    let made = person.user.home().join("made").metadata().unwrap();
    assert_eq!(
        (made.uid(), made.gid()),
        (person.user.uid(), person.user.gid())
    );
    // A limit needs a cgroup that is the user's.
    run(&["--memory", "100m"], "true")
        .code_is(125)
        .fails_with("linux.resources.memory");

    let name = world::name();
    person
        .carrack(&["run", "--name", &name, "busybox:test", "touch", "/kept"])
        .ok();
    person.carrack(&["ps", "-a"]).ok().stdout_has("exited (0)");
    person.carrack(&["rm", &name]).ok();
    person.carrack(&["rmi", "-a"]).ok();
    assert_eq!(std::fs::read_dir(person.layers()).unwrap().count(), 0);
    let containers = person.user.runtime_dir().join("carrack/containers");
    assert_eq!(std::fs::read_dir(containers).unwrap().count(), 0);
}

#[test]
fn an_ordinary_user_has_a_terminal_in_a_container() {
    let world = require!(World::new());
    let person = require!(with_busybox(&world));
    let (mut terminal, slave) = Terminal::open();
    terminal.resize(31, 97);
    let before = rustix::termios::tcgetattr(&slave).unwrap();
    let copy = || Stdio::from(slave.try_clone().unwrap());
    for (user, id) in [("root", "0"), ("app", "1000")] {
        let mut child = person
            .command(&["run", "--rm", "-it", "--user", user, "busybox:test", "sh"])
            .stdin(copy())
            .stdout(copy())
            .stderr(copy())
            .spawn()
            .unwrap();
        terminal.type_text("tty; stty size; echo id=$(id -u)=\n");
        terminal.expect("/dev/pts/0");
        terminal.expect("31 97");
        terminal.expect(&format!("id={id}="));
        // It is the user's, by its name and as the controlling terminal.
        terminal.type_text("echo a$((1 + 1)) > /dev/pts/0; echo b$((1 + 1)) > /dev/tty\n");
        terminal.expect("a2");
        terminal.expect("b2");
        // Control-C goes to the program in front, not to us.
        terminal.type_text("sleep 100\n");
        terminal.expect("sleep 100");
        std::thread::sleep(Duration::from_millis(300));
        terminal.type_text("\x03echo after=$?=\n");
        terminal.expect("after=130=");
        terminal.type_text("exit 5\n");
        assert_eq!(child.wait().unwrap().code(), Some(5));
        let after = rustix::termios::tcgetattr(&slave).unwrap();
        assert_eq!(
            format!("{:?}", after.local_modes),
            format!("{:?}", before.local_modes)
        );
    }
    let containers = person.user.runtime_dir().join("carrack/containers");
    assert_eq!(std::fs::read_dir(containers).unwrap().count(), 0);
}

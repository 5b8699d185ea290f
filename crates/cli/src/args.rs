//! The command line, as data. Values are parsed into the engine's types here, so a wrong one is an error
//! that names its flag before anything is touched.

use crate::image_args::{
    HistoryFlags, ImageVerb, ImportFlags, ListFlags, LoadFlags, RemoveFlags, SaveFlags, SystemVerb,
    TagFlags, UntagFlags,
};
use crate::manifest_args::ManifestVerb;
use crate::registry_args::{LoginFlags, LogoutFlags, PullFlags, PushFlags, SearchFlags};
use carrack_engine::DriverKind;
use carrack_engine::request::{Capability, Network, Tmpfs, Ulimit, Volume, parse_cpus, parse_size};
use carrack_spec::ContainerId;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Containers and images.
#[derive(Debug, Parser)]
#[command(
    name = "carrack",
    version,
    about,
    arg_required_else_help = true,
    infer_subcommands = false
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Flags of every verb.
#[derive(Debug, Default, Args)]
pub struct Global {
    /// Directory of images and writable layers [default: /var/lib/carrack, for users $XDG_DATA_HOME/carrack]
    #[arg(long, global = true, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Directory of run-time state [default: /run/carrack, for users $XDG_RUNTIME_DIR/carrack]
    #[arg(long, global = true, value_name = "DIR")]
    pub runroot: Option<PathBuf>,
    /// How a store that is made now keeps its layers: overlay, pool or pool-verity [default: overlay]
    #[arg(long, global = true, value_name = "DRIVER")]
    pub storage_driver: Option<DriverKind>,
    /// Configuration file [default: /etc/carrack/carrack.toml, for users $XDG_CONFIG_HOME/carrack/carrack.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to tell on standard error: off, error, warn, info, debug or trace [default: warn]
    #[arg(long, global = true, value_name = "LEVEL", value_parser = crate::logging::parse_level)]
    pub log_level: Option<log::LevelFilter>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a command in a new container
    Run(Box<RunFlags>),
    /// Manage images
    #[command(subcommand)]
    Image(ImageVerb),
    /// Manage manifest lists: images for several machines under one name
    #[command(subcommand)]
    Manifest(ManifestVerb),
    /// See to the whole store
    #[command(subcommand)]
    System(SystemVerb),
    /// Pull images from registries, layouts and archives
    Pull(PullFlags),
    /// Push an image to a registry, a layout or an archive
    Push(PushFlags),
    /// Look for images in a registry
    Search(SearchFlags),
    /// Log in to a registry
    Login(LoginFlags),
    /// Log out of a registry
    Logout(LogoutFlags),
    /// Load images from an OCI image layout or a docker archive
    Load(LoadFlags),
    /// Save images to an archive
    Save(SaveFlags),
    /// Make an image of one layer from a tar file
    Import(ImportFlags),
    /// List images
    Images(ListFlags),
    /// Show how an image was made
    History(HistoryFlags),
    /// Give an image more names
    Tag(TagFlags),
    /// Take names from an image
    Untag(UntagFlags),
    /// Remove images
    Rmi(RemoveFlags),
    /// List containers
    Ps(PsFlags),
    /// Remove containers
    Rm(RmFlags),
    /// Show the version
    Version,
}

/// Flags of `run`.
#[derive(Debug, Args)]
pub struct RunFlags {
    /// Keep standard input open and hand it to the command
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Remove everything of the container when it ends
    #[arg(long)]
    pub rm: bool,
    /// Set an environment variable; without a value, take it from this environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Working directory, made when it is missing
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User and group by name (looked up in the image) or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Add a supplementary group
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,
    /// Show a host path inside; options ro, rw and others of mount(8)
    #[arg(short, long, value_name = "HOST:CONTAINER[:OPTIONS]")]
    pub volume: Vec<Volume>,
    /// Mount a memory file system
    #[arg(long, value_name = "DIR[:OPTIONS]")]
    pub tmpfs: Vec<Tmpfs>,
    /// Name of the container
    #[arg(long)]
    pub name: Option<ContainerId>,
    /// Host name inside [default: the start of the container's id]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Replace the image's entry point; empty takes it away
    #[arg(long, value_name = "COMMAND")]
    pub entrypoint: Option<String>,
    /// Make the root file system read-only
    #[arg(long)]
    pub read_only: bool,
    /// Limit memory, in bytes or with b, k, m or g
    #[arg(short, long, value_name = "SIZE", value_parser = parse_size)]
    pub memory: Option<i64>,
    /// Limit processor time to so many CPUs
    #[arg(long, value_name = "NUMBER", value_parser = parse_cpus)]
    pub cpus: Option<u32>,
    /// Relative weight of processor time
    #[arg(long, value_name = "WEIGHT", value_parser = clap::value_parser!(u64).range(2..=262_144))]
    pub cpu_shares: Option<u64>,
    /// Limit the number of processes; -1 is no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Network: none (a loopback interface only; the default for now) or host
    #[arg(
        long,
        visible_alias = "net",
        value_name = "NETWORK",
        default_value = "none"
    )]
    pub network: String,
    /// Add a capability, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_add: Vec<Capability>,
    /// Drop a capability, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_drop: Vec<Capability>,
    /// Give all capabilities and devices, and no filter
    #[arg(long)]
    pub privileged: bool,
    /// no-new-privileges, seccomp=unconfined or seccomp=FILE
    #[arg(long, value_name = "OPTION")]
    pub security_opt: Vec<String>,
    /// Limit a resource of processes, for example nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit: Vec<Ulimit>,
    /// When to pull the image
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub pull: PullPolicy,
    /// Tell nothing of a pull
    #[arg(short, long)]
    pub quiet: bool,
    /// Image, by name or id; of a manifest list the one for this machine
    pub image: String,
    /// Command and its arguments, in place of the image's own
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// When `run` pulls its image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum PullPolicy {
    /// When it is not in the store
    #[default]
    Missing,
    /// Each time; fails when the registry cannot be reached
    Always,
    /// When the registry has another one; the one in the store will do when it cannot be reached
    Newer,
    /// Never
    Never,
}

impl RunFlags {
    /// `--network`, parsed.
    ///
    /// # Errors
    /// Names the networks that exist.
    pub fn network(&self) -> Result<Network, carrack_engine::request::RequestError> {
        self.network.parse()
    }
}

/// Flags of `ps`.
#[derive(Debug, Args)]
pub struct PsFlags {
    /// Show also containers that ended
    #[arg(short, long)]
    pub all: bool,
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
}

/// Flags of `rm`.
#[derive(Debug, Args)]
pub struct RmFlags {
    /// Kill a container that runs
    #[arg(short, long)]
    pub force: bool,
    /// Containers, by name or id
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_tables_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn words_after_the_image_are_the_commands_own() {
        let cli = Cli::try_parse_from([
            "carrack", "run", "-it", "--rm", "app", "ls", "-l", "--rm", "--", "x",
        ])
        .unwrap();
        let Verb::Run(flags) = cli.verb else {
            panic!("run");
        };
        assert!(flags.interactive && flags.tty && flags.rm);
        assert_eq!(flags.image, "app");
        assert_eq!(flags.command, ["ls", "-l", "--rm", "--", "x"]);
        let cli = Cli::try_parse_from(["carrack", "run", "app", "-c", "x"]).unwrap();
        assert!(matches!(cli.verb, Verb::Run(flags) if flags.command == ["-c", "x"]));
    }

    #[test]
    fn unknown_flags_name_the_nearest_one() {
        let error = Cli::try_parse_from(["carrack", "run", "--hostnme", "x", "app"]).unwrap_err();
        assert!(error.to_string().contains("--hostname"), "{error}");
        let error = Cli::try_parse_from(["carrack", "--log-level", "loud", "ps"]).unwrap_err();
        let levels = "there are off, error, warn, info, debug, trace";
        assert!(error.to_string().contains(levels), "{error}");
        let error = Cli::try_parse_from(["carrack", "imges"]).unwrap_err();
        assert!(error.to_string().contains("images"), "{error}");
        let error = Cli::try_parse_from(["carrack", "run", "-v", "data:/x", "app"]).unwrap_err();
        assert!(error.to_string().contains("host path"), "{error}");
    }
}

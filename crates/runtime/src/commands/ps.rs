//! `ps`: the processes of a container.

use crate::args::{Arity, Command, Flag};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

static FORMAT: Flag = Flag::text("format", "FORMAT", "table (the default) or json").short('f');

/// The command.
pub static COMMAND: Command = Command {
    name: "ps",
    summary: "list the processes of a container",
    arguments: "CONTAINER [PS OPTIONS]",
    description: "   Runs ps(1) with the options behind CONTAINER (-ef when there are none) and shows its title
   and the lines of the container's processes. With --format json, prints the process ids only
   and runs nothing. Process ids are those of the host.",
    flags: &[&FORMAT],
    arity: Arity::Trailing(1),
    hidden: false,
    run,
};

fn run(context: &Context) -> Result<u8, Failure> {
    let format = output::Format::new(context.matches.text(&FORMAT))?;
    let pids = context.container()?.processes()?;
    let text = match format {
        output::Format::Json if pids.is_empty() => "null\n".to_owned(),
        output::Format::Json => output::json_line(&pids)?,
        output::Format::Table => filter(&listing(context)?, &pids)?,
    };
    output::print(&text)?;
    Ok(0)
}

/// What ps(1) prints about the whole host.
fn listing(context: &Context) -> Result<String, Failure> {
    let mut ps = std::process::Command::new("ps");
    match context.matches.args.get(1..) {
        Some(options) if !options.is_empty() => ps.args(options),
        _ => ps.arg("-ef"),
    };
    let output = ps
        .output()
        .map_err(|error| Failure::file("run", "ps", error))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let reason = format!("ps failed ({}): {}", output.status, stderr.trim_end());
        return Err(Failure::State(reason));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The title and the lines of `pids`.
fn filter(listing: &str, pids: &[i32]) -> Result<String, Failure> {
    let mut lines = listing.lines();
    let title = lines.next().unwrap_or_default();
    let column = title.split_whitespace().position(|name| name == "PID");
    let column = column.ok_or_else(|| {
        Failure::State("the output of ps has no PID column; choose ps options that show it".into())
    })?;
    let mine = lines.filter(|line| {
        let pid = line.split_whitespace().nth(column).map(str::parse);
        matches!(pid, Some(Ok(pid)) if pids.contains(&pid))
    });
    Ok([title]
        .into_iter()
        .chain(mine)
        .flat_map(|line| [line, "\n"])
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_title_and_the_containers_lines() {
        let listing = "UID   PID  CMD\nroot    1  init\nroot   17  sh 1\nbroken\n";
        assert_eq!(
            filter(listing, &[17, 18]).unwrap(),
            "UID   PID  CMD\nroot   17  sh 1\n"
        );
        assert!(filter("USER CMD\n", &[1]).is_err());
        assert!(filter("", &[1]).is_err());
    }
}

//! The help pages of all commands, which have one layout.

use clap::{Arg, ArgAction, Args, Command};

use crate::output::OutputArgs;

/// Gives `command` and its subcommands the options of all commands, and their pages. An option with `hide_short_help` is
/// rarely needed: a page contains it only if it `shows_all`, and otherwise ends with the number of such options. A
/// subcommand without a text after its options has that of its command.
pub fn with_pages(command: Command, shows_all: bool) -> Command {
    // Another program shows the pages of this command.
    if command.is_disable_help_flag_set() {
        return command;
    }

    let is_first = command.get_name() == "wavemill";
    let about = command.get_about().cloned().unwrap_or_default();
    let mut n_left_out = 0;
    let command = OutputArgs::augment_args(command).mut_args(|arg| {
        let is_left_out = arg.is_hide_short_help_set() && !shows_all;
        n_left_out += usize::from(is_left_out);
        let is_elsewhere = arg.is_global_set() && !is_first;
        let is_hidden = arg.is_hide_set() || is_left_out || is_elsewhere;
        // For an option that only one of two kinds of help contains, clap would use another layout in the longer one.
        let arg = arg.hide_short_help(false).hide(is_hidden);
        arg.hide_env_values(true)
    });

    let text = command.get_after_help().cloned().unwrap_or_default();
    let elsewhere = match is_first {
        true => "",
        false => "Options and exit codes of all commands: see `wavemill --help`\n\n",
    };
    let left_out = match n_left_out {
        0 => String::new(),
        n => format!("\n\n--help-all shows {n} more options."),
    };

    let all = Arg::new("help-all").long("help-all").hide(true);
    command
        .arg(all.action(ArgAction::Help).help("Print all options"))
        .about(about)
        .after_help(format!("{elsewhere}{text}{left_out}"))
        .mut_subcommands(|one| match one.get_after_help() {
            Some(_) => with_pages(one, shows_all),
            None => with_pages(one.after_help(text.clone()), shows_all),
        })
}

/// Lists the subcommands of `program` under the titles of `groups`, which contain their names.
pub fn with_groups(program: Command, groups: &[(&str, &[&str])]) -> Command {
    let style = *program.get_styles().get_header();
    let mut page = "{about-with-newline}\n{usage-heading} {usage}\n\n".to_owned();
    for (title, names) in groups {
        page += &format!("{style}{title}:{style:#}\n");
        for name in *names {
            let about = program.find_subcommand(name).and_then(Command::get_about);
            page += &format!("  {name:<11}  {}\n", about.cloned().unwrap_or_default());
        }
        page += "\n";
    }
    let options = format!("{style}Options of all commands, except --version:{style:#}\n");
    program.help_template(page + &options + "{options}{after-help}")
}

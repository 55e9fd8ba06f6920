//! What `--help` says is part of the interface: a change shows in a golden file.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use clap::{Command, CommandFactory as _};
use horcruxctl::args::Cli;

#[test]
fn every_command_explains_itself() {
    let mut root = Cli::command().term_width(100);
    root.build();
    visit(&root, "horcruxctl");
}

fn visit(command: &Command, path: &str) {
    let mut shown = command.clone().term_width(100).bin_name(path);
    let name = format!("help_{}", path.replace([' ', '-'], "_"));
    let text = shown.render_long_help().to_string();
    insta::with_settings!({ snapshot_path => "golden", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, text);
    });
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set()) {
        visit(sub, &format!("{path} {}", sub.get_name()));
    }
}

#[test]
fn a_completion_script_knows_the_nouns() {
    let mut script = Vec::new();
    clap_complete::generate(clap_complete::Shell::Bash, &mut Cli::command(), "horcruxctl", &mut script);
    let script = String::from_utf8(script).unwrap();
    for noun in ["node", "vm", "container", "watch", "join-token", "grant", "what-if", "audit", "console"] {
        assert!(script.contains(noun), "{noun}");
    }
}

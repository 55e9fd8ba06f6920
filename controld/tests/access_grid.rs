//! Who may call what: every method of the contract against every role, as a golden file.

use std::fs;

use horcrux_controld::access::{Role, allows};
use horcrux_proto::authz::{Caller, REQUIREMENTS, privilege_name};
use horcrux_proto::name::Resource;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/access_grid.txt");

fn grid() -> String {
    let mut text = String::from("method  demands  nobody  no-role  Auditor  Administrator\n");
    for requirement in REQUIREMENTS {
        let demands = match requirement.caller {
            Caller::Anyone => "anyone".to_owned(),
            Caller::SignedIn => "signed-in".to_owned(),
            Caller::Node => "node".to_owned(),
            Caller::Holder(privilege) => privilege_name(privilege),
        };
        let may = |signed_in: bool, role: Option<Role>| {
            let allowed = match requirement.caller {
                Caller::Anyone => true,
                Caller::SignedIn => signed_in,
                Caller::Node => false,
                Caller::Holder(privilege) => signed_in && allows(role, privilege, &Resource::Root),
            };
            if allowed { "yes" } else { "-" }
        };
        let columns = [
            requirement.method,
            &demands,
            may(false, None),
            may(true, None),
            may(true, Some(Role::Auditor)),
            may(true, Some(Role::Administrator)),
        ];
        text.push_str(&columns.join("  "));
        text.push('\n');
    }
    text
}

#[test]
fn the_grid_is_as_agreed() {
    let expected = fs::read_to_string(GOLDEN).unwrap_or_default();
    assert_eq!(
        grid(),
        expected,
        "if the change is meant, put the new grid into tests/golden/access_grid.txt"
    );
}

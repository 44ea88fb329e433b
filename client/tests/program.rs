//! The pages as a program of their own.

use std::process::Command;

#[test]
fn a_setting_that_is_missing_or_wrong_ends_it_with_a_line_that_names_it() {
    for (set, named) in
        [(&[][..], "API_URL"), (&[("API_URL", "http://localhost:1"), ("PORT", "many")][..], "PORT")]
    {
        let mut program = Command::new(env!("CARGO_BIN_EXE_client"));
        let output = program.env_clear().envs(set.iter().copied()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{named}");
        assert!(said.contains(named), "{named}: {said}");
    }
}

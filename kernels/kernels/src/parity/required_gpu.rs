//! Checks that tests fail if they need a GPU that cannot be used. A fake driver refuses to initialise.

#[allow(dead_code)] // used by the tests of opening a backend
#[path = "../../tests/stand_in/mod.rs"]
mod stand_in;

use stand_in::Machine;

/// Name of a fast parity test, which the tests below start.
const TEST: &str = "parity::cases::silence_is_all_zero_after_minmax";

/// Runs tests of this program with a CUDA driver that refuses to initialise; returns their success and output.
fn ran(name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
    let refusing = Machine::new(name).with("FAKE_INIT", "999");
    let output = refusing.start(&[&["--exact"], arguments].concat(), variables);
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

#[test]
fn tests_that_need_a_gpu_fail_if_it_refuses() {
    let (succeeds, said) = ran("refused", &[&format!("{TEST}::cuda"), "--ignored"], &[]);
    assert!(
        !succeeds
            && said.contains("a GPU is required: cuda: open: fake error (CUDA_ERROR_UNKNOWN)"),
        "{said}"
    );

    let (succeeds, said) = ran("not-asked", &[&format!("{TEST}::cuda")], &[]);
    assert!(
        succeeds && said.contains("0 passed; 0 failed; 1 ignored"),
        "{said}"
    );
}

#[test]
fn a_gpu_that_is_required_fails_every_test_of_devices() {
    let here = format!("{TEST}::here");
    for variables in [
        [("WAVEMILL_REQUIRE_CUDA", "1")],
        [("WAVEMILL_PARITY_DEVICES", "cuda")],
    ] {
        let (succeeds, said) = ran(variables[0].0, &[&here], &variables);
        assert!(
            !succeeds && said.contains("CUDA_ERROR_UNKNOWN"),
            "{variables:?}: {said}"
        );
    }
}

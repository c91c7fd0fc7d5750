//! For tests: compares a result with its file in `tests/data/registry`.

use std::path::Path;

/// Asserts that `actual` is what the file holds; with `COSMONAUT_BLESS=1` writes it there instead.
pub(crate) fn assert_file(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/registry")
        .join(name);
    if std::env::var_os("COSMONAUT_BLESS").is_some() {
        std::fs::write(&path, actual).expect("the expected part can be written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        actual == expected,
        "{} differs (COSMONAUT_BLESS=1 rewrites it); now:\n{actual}",
        path.display()
    );
}

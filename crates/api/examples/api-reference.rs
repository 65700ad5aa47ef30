//! Prints the API reference; used by `cargo xtask docs`.

#[expect(clippy::print_stdout, reason = "printing is what it is for")]
fn main() {
    print!("{}", vmoon_api::reference::markdown());
}

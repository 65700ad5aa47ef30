//! XAPI's failures: a code and parameters.

/// A failure as XAPI answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(pub Vec<String>);

impl Fault {
    /// The code with these parameters.
    pub fn new<const N: usize>(code: &str, params: [&str; N]) -> Self {
        Self(std::iter::once(code).chain(params).map(str::to_owned).collect())
    }

    /// An object that is not there.
    pub fn handle(class: &str, reference: &str) -> Self {
        Self::new("HANDLE_INVALID", [class, reference])
    }

    /// An exception that XAPI passes on as its OCaml prints it.
    pub fn internal(text: &str) -> Self {
        Self::new("INTERNAL_ERROR", [text])
    }
}

/// The result of a call.
pub type Result<T> = std::result::Result<T, Fault>;

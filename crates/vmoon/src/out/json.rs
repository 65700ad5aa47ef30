//! Values for programs: JSON and YAML, exactly the types of the API.

use serde::Serialize;
use vmoon_core::{Error, Result, error::ErrorRecord};

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::internal("a result does not serialise").source(error)
}

/// JSON over several lines, with a line end.
pub(crate) fn pretty(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut out = serde_json::to_vec_pretty(value).map_err(broken)?;
    out.push(b'\n');
    Ok(out)
}

/// JSON on one line, with a line end.
pub(crate) fn line(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut out = serde_json::to_vec(value).map_err(broken)?;
    out.push(b'\n');
    Ok(out)
}

/// YAML.
pub(crate) fn yaml(value: &impl Serialize) -> Result<Vec<u8>> {
    // Through a JSON value: the two formats then agree on every name and shape.
    let value = serde_json::to_value(value).map_err(broken)?;
    Ok(serde_yaml_ng::to_string(&value).map_err(broken)?.into_bytes())
}

#[derive(Serialize)]
struct ErrorLine<'a> {
    error: ErrorRecord,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

/// An error as one line of JSON, with the name of the machine where it is one of several.
pub(crate) fn error(who: Option<&str>, error: &Error) -> String {
    let line = ErrorLine { error: error.to_record(), name: who };
    let text = serde_json::to_string(&line).unwrap_or_else(|_| format!("{{\"error\":{{\"code\":\"{}\"}}}}", error.code()));
    format!("{text}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmoon_core::Code;

    #[test]
    fn errors_have_the_shape_of_the_api() {
        let e = Error::new(Code::Usage, "no").hint("yes");
        assert_eq!(error(None, &e), "{\"error\":{\"code\":\"usage\",\"message\":\"no\",\"hint\":\"yes\"}}\n");
        assert_eq!(error(Some("a\n"), &e), "{\"error\":{\"code\":\"usage\",\"message\":\"no\",\"hint\":\"yes\"},\"name\":\"a\\n\"}\n");
    }
}

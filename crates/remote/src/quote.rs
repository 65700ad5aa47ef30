//! An argument list as one line for the login shell of another host, which is the only form SSH can carry it in.
//!
//! Every argument stands in single quotes, in which a POSIX shell leaves everything as it is. A login shell of another family
//! (csh, fish) reads quotes, backslashes and exclamation marks in arguments differently; plain arguments are safe there, too.

/// The line. An empty list gives an empty line.
pub fn line<S: AsRef<str>>(argv: &[S]) -> String {
    let mut out = String::new();
    for argument in argv {
        if !out.is_empty() {
            out.push(' ');
        }
        let argument = argument.as_ref();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"%+,-./:=@_".contains(&b);
        if !argument.is_empty() && argument.bytes().all(plain) && !argument.starts_with(['=', '-', '%']) {
            out.push_str(argument);
        } else {
            out.push('\'');
            out.push_str(&argument.replace('\'', r"'\''"));
            out.push('\'');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_escapes_its_quotes() {
        assert_eq!(line(&["ls", "-l", "a b", "it's", "$(x)", ""]), r"ls '-l' 'a b' 'it'\''s' '$(x)' ''");
        assert_eq!(line::<&str>(&[]), "");
    }
}

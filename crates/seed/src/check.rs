//! Whether what a user wrote can stand in a seed. Pure.

/// Whether it is a host name, with or without a domain.
pub fn is_hostname(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
}

/// Whether it is a login name.
pub fn is_user(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && !text.starts_with(['-', '.'])
        && text.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-' | '.'))
}

/// Whether it is a line of `authorized_keys` without options.
pub fn is_ssh_key(text: &str) -> bool {
    let known = ["ssh-ed25519 ", "ssh-rsa ", "ecdsa-sha2-", "sk-ssh-ed25519@", "sk-ecdsa-sha2-"];
    known.iter().any(|kind| text.starts_with(kind))
        && !text.trim_end().contains(['\n', '\r'])
        && text.split(' ').nth(1).is_some_and(|key| key.len() > 30)
}

/// Whether it is the name of a package of a distribution.
pub fn is_package(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.chars().all(|char| char.is_ascii_alphanumeric() || "+-._:=~".contains(char))
        && !text.starts_with('-')
}

/// A machine's name as a host name.
pub fn hostname_of(name: &str) -> String {
    let label: String = name.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '-' }).take(63).collect();
    label.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_an_option_or_a_second_line_is_refused() {
        assert!(is_hostname("web-1.lab") && !is_hostname("-x") && !is_hostname("a..b") && !is_hostname("a b") && !is_hostname(""));
        assert!(is_user("ada") && !is_user("-ada") && !is_user("a b") && !is_user("a:b") && !is_user(""));
        let key = format!("ssh-ed25519 {} ada@lab", "A".repeat(68));
        assert!(is_ssh_key(&key) && !is_ssh_key(&format!("{key}\nssh-rsa x")) && !is_ssh_key("ssh-ed25519 short"));
        assert!(is_package("libx-1.0+b:amd64") && !is_package("--now") && !is_package("a;b") && !is_package(""));
        assert_eq!((hostname_of("web_01").as_str(), hostname_of("-a-").as_str()), ("web-01", "a"));
    }
}

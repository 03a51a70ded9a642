//! `mqtt://[user[:password]@]host[:port][/root]/[vehicle]`: where the device under test publishes.

use crate::config::PASSWORD_VARIABLE;

/// A broker and whom to listen to there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// User name and password.
    pub login: Option<(String, String)>,
    /// First level or levels of the topics.
    pub root: String,
    /// The vehicle; the one that is online when none is said.
    pub vehicle: Option<String>,
}

impl Address {
    /// Parses the address. A password that is not in it comes from the environment, as the daemon's does.
    ///
    /// # Errors
    /// What is wrong, with an example.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("--via: {what}; write mqtt://HOST[:PORT][/VEHICLE]");
        if text.starts_with("mqtts://") {
            return Err(wrong(
                "TLS is not spoken here: use a plain listener, or a tunnel to one (ssh -L 1883:localhost:1883 BOARD)",
            ));
        }
        let rest = text.strip_prefix("mqtt://").ok_or_else(|| wrong("this is no mqtt:// address"))?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, authority) = match authority.rsplit_once('@') {
            None => (None, authority),
            Some((login, authority)) => {
                let (user, password) = match login.split_once(':') {
                    Some((user, password)) => (user, password.to_owned()),
                    None => (login, std::env::var(PASSWORD_VARIABLE).unwrap_or_default()),
                };
                (Some((user.to_owned(), password)), authority)
            }
        };
        // An IPv6 address stands in brackets.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| wrong(&format!("\"{port}\" is no port")))?)
            }
            _ => (authority, 1883),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(wrong("it names no host"));
        }
        if path.contains(['+', '#']) {
            return Err(wrong("a vehicle has no + or # in its name"));
        }
        let (root, vehicle) = match path.trim_end_matches('/').rsplit_once('/') {
            Some((root, vehicle)) => (root, vehicle),
            None => ("remoteclip", path.trim_end_matches('/')),
        };
        let vehicle = (!vehicle.is_empty()).then(|| vehicle.to_owned());
        Ok(Self { host: host.to_owned(), port, login, root: root.to_owned(), vehicle })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_its_default() {
        let address = Address::parse("mqtt://board").unwrap();
        assert_eq!((address.host.as_str(), address.port, address.root.as_str()), ("board", 1883, "remoteclip"));
        assert_eq!((address.vehicle, address.login), (None, None));
    }

    #[test]
    fn everything_can_be_said() {
        let address = Address::parse("mqtt://me:se@cret@[::1]:1884/fleet/north/uav-1").unwrap();
        assert_eq!((address.host.as_str(), address.port), ("::1", 1884));
        assert_eq!((address.root.as_str(), address.vehicle.as_deref()), ("fleet/north", Some("uav-1")));
        assert_eq!(address.login, Some(("me".to_owned(), "se@cret".to_owned())));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, named) in [
            ("board", "no mqtt://"),
            ("mqtts://board", "TLS"),
            ("mqtt://:1883", "no host"),
            ("mqtt://board:x", "no port"),
            ("mqtt://board/+", "+ or #"),
        ] {
            let error = Address::parse(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}

//! Which address a request came from, when proxies passed it on.

use std::{
    convert::Infallible,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;
use warp::Filter;

use crate::{Env, Peer, env::Invalid};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The proxies whose word about the client counts. Whoever else sends `x-forwarded-for` may have made it up.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxies(Vec<IpNet>);

impl Proxies {
    /// This machine alone.
    pub fn local() -> Self {
        let loopback =
            [IpNet::new(Ipv4Addr::new(127, 0, 0, 0).into(), 8), IpNet::new(Ipv6Addr::LOCALHOST.into(), 128)];
        Self(loopback.into_iter().flatten().collect())
    }

    /// Reads `TRUSTED_PROXIES`; where it is not set, [`local`](Self::local).
    ///
    /// # Errors
    /// When it is wrong.
    pub fn from_env(env: &Env) -> Result<Self, Invalid> {
        env.or("TRUSTED_PROXIES", Self::local(), "addresses or networks, separated by commas")
    }

    /// The nearest address on the way back from `peer` that is none of these proxies.
    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let values = headers.get_all(FORWARDED_FOR).into_iter().filter_map(|value| value.to_str().ok());
        let way: Vec<&str> = values.flat_map(|value| value.split(',')).collect();
        let mut client = peer;
        for hop in way.into_iter().rev() {
            if !self.trusts(client) {
                break;
            }
            let Ok(before) = hop.trim().parse::<IpAddr>() else { break };
            client = before;
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address.to_canonical()))
    }
}

impl FromStr for Proxies {
    type Err = ();

    /// Reads `10.0.0.0/8, 192.0.2.7`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let network = |text: &str| text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        text.split(',').map(|text| network(text.trim()).map_err(|_| ())).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(ToString::to_string)).finish()
    }
}

/// Who asks, by their address, as far as trusted proxies tell. With IPv6 by the first half of it: one customer has the whole
/// last half to choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client(pub IpAddr);

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
            address @ IpAddr::V4(_) => address,
        })
    }
}

/// Extracts who asks. Takes every request that came through [`serve`](crate::serve()).
pub fn client(
    proxies: &Proxies,
) -> impl Filter<Extract = (Client,), Error = Infallible> + Clone + Send + Sync + use<> {
    let proxies = proxies.clone();
    let peer = warp::ext::optional::<Peer>();
    peer.and(warp::header::headers_cloned()).map(move |peer: Option<Peer>, headers: HeaderMap| {
        // Nobody in particular, where there is no connection: as strict as can be.
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
        Client::from(proxies.client(peer, &headers))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(proxies: &str, peer: &str, forwarded: &[&str], expected: &str) {
        let headers = forwarded.iter().map(|value| (FORWARDED_FOR, value.parse().unwrap())).collect();
        let proxies: Proxies = proxies.parse().unwrap();
        let client = proxies.client(peer.parse().unwrap(), &headers);
        assert_eq!(client, expected.parse::<IpAddr>().unwrap(), "{peer} {forwarded:?}");
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        check("127.0.0.0/8", "203.0.113.7", &["198.51.100.1"], "203.0.113.7");
        check("127.0.0.0/8", "127.0.0.1", &["198.51.100.1"], "198.51.100.1");
        check("10.0.0.0/8, 192.0.2.7", "192.0.2.7", &["198.51.100.1, 10.1.2.3"], "198.51.100.1");
    }

    #[test]
    fn what_the_client_itself_has_sent_is_not() {
        check("127.0.0.0/8", "127.0.0.1", &["1.2.3.4, 198.51.100.1"], "198.51.100.1");
        check("127.0.0.0/8", "127.0.0.1", &["1.2.3.4", "198.51.100.1"], "198.51.100.1");
        check("127.0.0.0/8", "127.0.0.1", &["1.2.3.4, unknown"], "127.0.0.1");
        check("127.0.0.0/8", "127.0.0.1", &[], "127.0.0.1");
    }

    #[test]
    fn one_network_is_one_client() {
        let client = |address: &str| Client::from(address.parse::<IpAddr>().unwrap());
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
        assert_eq!(client("::ffff:192.0.2.2"), client("192.0.2.2"));
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:2"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
    }

    #[test]
    fn networks_and_addresses_are_read() {
        assert_eq!("127.0.0.0/8, ::1".parse(), Ok(Proxies::local()));
        for wrong in ["", "localhost", "10.0.0.0/33", "10.0.0.0/8,"] {
            assert!(wrong.parse::<Proxies>().is_err(), "{wrong}");
        }
    }
}

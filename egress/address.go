package egress

import (
	"encoding/binary"
	"net/netip"

	"github.com/ultravisor/beacon"
)

// checkAddress decides about an address that is about to be dialled. Addresses
// that carry another one inside of them, for a gateway to unpack, count as both.
func (p *Policy) checkAddress(ip netip.Addr) error {
	for _, a := range spellings(ip) {
		switch {
		case never(a):
			return beacon.Errorf(beacon.Denied, "%w", &AddressError{a, true})
		case p.Private || !private(a) || p.granted(a):
		default:
			return beacon.Errorf(beacon.Denied, "%w", &AddressError{a, false})
		}
	}
	return nil
}

// An AddressError is an address that the policy refuses, found behind a name or
// in a URL. It comes as the cause of a *beacon.Error with code beacon.Denied.
type AddressError struct {
	Address netip.Addr
	// Never is true of addresses that no policy allows.
	Never bool
}

func (e *AddressError) Error() string {
	if e.Never {
		return "address " + e.Address.String() + " is link-local, multicast or a metadata service: never requested"
	}
	return "address " + e.Address.String() + " is private or local, which the policy does not allow"
}

func (p *Policy) granted(ip netip.Addr) bool {
	for _, n := range p.Networks {
		if n.Contains(ip) {
			return true
		}
	}
	return false
}

// spellings gives an address and the IPv4 addresses that packets to it may end
// up at.
func spellings(ip netip.Addr) []netip.Addr {
	ip = ip.WithZone("").Unmap()
	all := []netip.Addr{ip}
	if !ip.Is6() {
		return all
	}
	b := ip.As16()
	last := func(invert byte) netip.Addr {
		return netip.AddrFrom4([4]byte{b[12] ^ invert, b[13] ^ invert, b[14] ^ invert, b[15] ^ invert})
	}
	switch {
	case nat64.Contains(ip) || translated.Contains(ip) || localNAT64.Contains(ip) || compatible.Contains(ip) && !local6.Contains(ip):
		all = append(all, last(0))
	case sixToFour.Contains(ip):
		all = append(all, netip.AddrFrom4([4]byte(b[2:6])))
	case teredo.Contains(ip):
		all = append(all, netip.AddrFrom4([4]byte(b[4:8])), last(0xff))
	}
	if id := binary.BigEndian.Uint32(b[8:12]); id == 0x00005efe || id == 0x02005efe { // ISATAP, RFC 5214
		all = append(all, last(0))
	}
	return all
}

var (
	nat64      = netip.MustParsePrefix("64:ff9b::/96")    // RFC 6052
	localNAT64 = netip.MustParsePrefix("64:ff9b:1::/48")  // RFC 8215
	translated = netip.MustParsePrefix("::ffff:0:0:0/96") // RFC 7915
	compatible = netip.MustParsePrefix("::/96")           // RFC 4291, deprecated
	local6     = netip.MustParsePrefix("::/127")          // unspecified and loopback
	sixToFour  = netip.MustParsePrefix("2002::/16")       // RFC 3056
	teredo     = netip.MustParsePrefix("2001::/32")       // RFC 4380
)

// never reports addresses that nobody has business with on a stranger's behalf:
// those of one link, where clouds keep their credentials, and of many hosts.
func never(ip netip.Addr) bool {
	return ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip == broadcast || metadata[ip]
}

var broadcast = netip.MustParseAddr("255.255.255.255")

// metadata holds the addresses of cloud metadata services that are not
// link-local: of AWS and Google Cloud over IPv6, of Alibaba Cloud, Azure and
// Oracle Cloud.
var metadata = map[netip.Addr]bool{
	netip.MustParseAddr("fd00:ec2::254"):   true,
	netip.MustParseAddr("fd20:ce::254"):    true,
	netip.MustParseAddr("100.100.100.200"): true,
	netip.MustParseAddr("168.63.129.16"):   true,
	netip.MustParseAddr("192.0.0.192"):     true,
}

// private reports addresses that are not of the public Internet.
func private(ip netip.Addr) bool {
	for _, n := range special {
		if n.Contains(ip) {
			return true
		}
	}
	return ip.Is6() && !global.Contains(ip) && !nat64.Contains(ip)
}

// global is what has been given out of IPv6 for the Internet.
var global = netip.MustParsePrefix("2000::/3")

// special are the registries of special-purpose addresses (RFC 6890 and its
// updates), as far as they are not reachable by everybody.
var special = prefixes(
	"0.0.0.0/8",       // this host: on Linux another way to write loopback
	"10.0.0.0/8",      // RFC 1918
	"100.64.0.0/10",   // carrier-grade NAT, RFC 6598
	"127.0.0.0/8",     // loopback
	"172.16.0.0/12",   // RFC 1918
	"192.0.0.0/24",    // protocol assignments
	"192.0.2.0/24",    // documentation
	"192.88.99.0/24",  // 6to4 relays
	"192.168.0.0/16",  // RFC 1918
	"198.18.0.0/15",   // benchmarks
	"198.51.100.0/24", // documentation
	"203.0.113.0/24",  // documentation
	"240.0.0.0/4",     // reserved
	"2001:2::/48",     // benchmarks
	"2001:db8::/32",   // documentation
	"3fff::/20",       // documentation
)

func prefixes(texts ...string) []netip.Prefix {
	all := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		all[i] = netip.MustParsePrefix(text)
	}
	return all
}

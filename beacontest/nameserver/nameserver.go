// Package nameserver is a server of names for tests: what a name leads to may
// change with every question, as it does where somebody rebinds it.
package nameserver

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// An Answer returns the addresses of a name, which has no dot at its end. Asked
// counts the earlier questions for IPv4 addresses of that name; those for IPv6
// addresses, which come beside them, do not count. Nil means that there is no
// such name. It is never called by two goroutines at a time.
type Answer func(name string, asked int) []string

// Script gives the questions about a name its answers one after the other, and
// the last one for ever.
func Script(answers map[string][][]string) Answer {
	return func(name string, asked int) []string {
		rounds := answers[name]
		if len(rounds) == 0 {
			return nil
		}
		return rounds[min(asked, len(rounds)-1)]
	}
}

// Start serves a Script until the test ends.
func Start(t testing.TB, answers map[string][][]string) *net.Resolver {
	t.Helper()
	resolver, stop, err := Serve(Script(answers))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return resolver
}

// Serve answers on a socket of its own, on loopback, until stop is called. The
// resolver asks there.
func Serve(answer Answer) (resolver *net.Resolver, stop func(), err error) {
	conn, err := new(net.ListenConfig).ListenPacket(context.Background(), "udp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("serve names: %w", err)
	}
	var task sync.WaitGroup
	task.Go(func() {
		asked, question := map[string]int{}, make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(question)
			if err != nil {
				return
			}
			if said := reply(question[:n], answer, asked); said != nil {
				_, _ = conn.WriteTo(said, from)
			}
		}
	})
	resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, conn.LocalAddr().String())
	}}
	return resolver, func() { _ = conn.Close(); task.Wait() }, nil
}

func reply(question []byte, answer Answer, asked map[string]int) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	name := strings.TrimSuffix(q.Name.String(), ".")
	addresses := answer(name, asked[name])
	if addresses == nil {
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, text := range addresses {
		header := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}
		switch ip := netip.MustParseAddr(text); {
		case q.Type == dnsmessage.TypeA && ip.Is4():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: ip.As4()}})
		case q.Type == dnsmessage.TypeAAAA && ip.Is6():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: ip.As16()}})
		}
	}
	if q.Type == dnsmessage.TypeA {
		asked[name]++
	}
	packed, err := m.Pack()
	if err != nil {
		return nil
	}
	return packed
}

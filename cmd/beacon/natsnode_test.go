//go:build unix

package main

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// jetStreamIsWell asks a node whether all streams have all their replicas, and
// those are current.
func jetStreamIsWell(address string, replicas int) bool {
	nc, err := nats.Connect("nats://"+address, nats.NoReconnect(), nats.Timeout(5*time.Second))
	if err != nil {
		return false
	}
	defer nc.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	js, err := jetstream.New(nc)
	if err != nil {
		return false
	}
	if _, err := js.AccountInfo(ctx); err != nil {
		return false
	}
	list := js.ListStreams(ctx)
	for info := range list.Info() {
		if info.Cluster == nil || info.Cluster.Leader == "" || len(info.Cluster.Replicas) != replicas-1 {
			return false
		}
		for _, peer := range info.Cluster.Replicas {
			if !peer.Current || peer.Offline {
				return false
			}
		}
	}
	return list.Err() == nil
}

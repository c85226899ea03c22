// Package beacon is the vocabulary of a beacon: a worker that takes work items
// from an Ultravisor server and has providers carry them out.
//
// A [WorkItem] is a request as received. A [Job] is the same request resolved,
// staged and bounded, the way a [Provider] sees it. A [Report] is what became
// of it. A [Registry] knows which provider has which [Capability].
//
// This package holds values and contracts only. The packages beside it do the
// work: transport and worker talk to a server, executor runs one item, runtime
// runs providers that are WebAssembly modules. Only cmd/beacon knows them all.
package beacon

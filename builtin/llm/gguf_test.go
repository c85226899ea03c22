//go:build integration

package llm_test

import (
	"bytes"
	"encoding/binary"
	"math"
)

// A tiny model, made here, that really runs on llama.cpp. Its weights say which
// token follows which, and nothing else: after a word that ends a prompt it
// answers a sentence that is known beforehand, one token after the other.
type tinyModel struct {
	tokens []string
	kinds  []int32
	next   map[int]int
	eos    int
}

// Token types of the format.
const (
	normalToken  = 1
	controlToken = 3
)

// newTinyModel makes a model that answers each cue, a control token, with the
// tokens of its sentence.
func newTinyModel(sentences map[string][]string) *tinyModel {
	m := &tinyModel{next: map[int]int{}}
	ids := map[string]int{}
	add := func(text string, kind int32) int {
		if id, ok := ids[text]; ok {
			return id
		}
		ids[text] = len(m.tokens)
		m.tokens = append(m.tokens, text)
		m.kinds = append(m.kinds, kind)
		return ids[text]
	}
	for b := range 256 {
		add(byteToken(byte(b)), normalToken)
	}
	add("th", normalToken) // for the one merge that the format wants
	m.eos = add("<|eos|>", controlToken)
	for cue, words := range sentences {
		last := add(cue, controlToken)
		for _, word := range words {
			text := ""
			for _, b := range []byte(word) {
				text += byteToken(b)
			}
			id := add(text, normalToken)
			m.next[last] = id
			last = id
		}
		m.next[last] = m.eos
	}
	return m
}

// byteToken is how the tokenizer of GPT-2 writes a byte.
func byteToken(b byte) string {
	shown := func(b int) bool { return b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae && b <= 0xff }
	if shown(int(b)) {
		return string(rune(b))
	}
	n := 0
	for i := range int(b) {
		if !shown(i) {
			n++
		}
	}
	return string(rune(256 + n))
}

// gguf writes the model as a file of llama.cpp's format, version 3.
func (m *tinyModel) gguf() []byte {
	const heads, feedForward = 4, 32
	width := (len(m.tokens) + 31) / 32 * 32 // of an embedding: one dimension per token

	var head, data bytes.Buffer
	put := func(v any) { _ = binary.Write(&head, binary.LittleEndian, v) }
	text := func(s string) {
		put(uint64(len(s)))
		head.WriteString(s)
	}
	fields := 0
	field := func(name string, kind uint32, write func()) {
		fields++
		text(name)
		put(kind)
		write()
	}
	str := func(name, v string) { field(name, 8, func() { text(v) }) }
	u32 := func(name string, v int) { field(name, 4, func() { put(uint32(v)) }) }
	f32 := func(name string, v float32) { field(name, 6, func() { put(v) }) }
	flag := func(name string, v bool) { field(name, 7, func() { put(v) }) }
	strs := func(name string, list []string) {
		field(name, 9, func() {
			put(uint32(8))
			put(uint64(len(list)))
			for _, s := range list {
				text(s)
			}
		})
	}
	str("general.architecture", "llama")
	str("general.name", "tiny")
	u32("general.file_type", 0)
	u32("llama.vocab_size", len(m.tokens))
	u32("llama.context_length", 4096)
	u32("llama.embedding_length", width)
	u32("llama.block_count", 1)
	u32("llama.feed_forward_length", feedForward)
	u32("llama.attention.head_count", heads)
	u32("llama.attention.head_count_kv", heads)
	f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
	u32("llama.rope.dimension_count", width/heads)
	str("tokenizer.ggml.model", "gpt2")
	str("tokenizer.ggml.pre", "default")
	strs("tokenizer.ggml.tokens", m.tokens)
	field("tokenizer.ggml.token_type", 9, func() {
		put(uint32(5))
		put(uint64(len(m.kinds)))
		put(m.kinds)
	})
	strs("tokenizer.ggml.merges", []string{"t h"})
	u32("tokenizer.ggml.bos_token_id", m.eos)
	u32("tokenizer.ggml.eos_token_id", m.eos)
	flag("tokenizer.ggml.add_bos_token", false)

	var infos bytes.Buffer
	tensors := 0
	tensor := func(name string, values func(i int) float32, dims ...int) {
		tensors++
		w := func(v any) { _ = binary.Write(&infos, binary.LittleEndian, v) }
		w(uint64(len(name)))
		infos.WriteString(name)
		w(uint32(len(dims)))
		n := 1
		for _, d := range dims {
			w(uint64(d))
			n *= d
		}
		w(uint32(0)) // 32-bit floats
		w(uint64(data.Len()))
		raw := make([]byte, 4*n)
		for i := range n {
			binary.LittleEndian.PutUint32(raw[4*i:], math.Float32bits(values(i)))
		}
		data.Write(raw)
		data.Write(make([]byte, (32-data.Len()%32)%32))
	}
	zero := func(int) float32 { return 0 }
	one := func(int) float32 { return 1 }
	tensor("token_embd.weight", func(i int) float32 { // a token is its own dimension
		if i%width == i/width {
			return 1
		}
		return 0
	}, width, len(m.tokens))
	tensor("output_norm.weight", one, width)
	tensor("output.weight", func(i int) float32 { // and has a successor
		from, to := i%width, i/width
		next, known := m.next[from]
		if !known {
			next = m.eos
		}
		if next == to {
			return 1
		}
		return 0
	}, width, len(m.tokens))
	tensor("blk.0.attn_norm.weight", one, width)
	for _, name := range []string{"attn_q", "attn_k", "attn_v", "attn_output"} {
		tensor("blk.0."+name+".weight", zero, width, width)
	}
	tensor("blk.0.ffn_norm.weight", one, width)
	tensor("blk.0.ffn_gate.weight", zero, width, feedForward)
	tensor("blk.0.ffn_up.weight", zero, width, feedForward)
	tensor("blk.0.ffn_down.weight", zero, feedForward, width)

	var file bytes.Buffer
	file.WriteString("GGUF")
	_ = binary.Write(&file, binary.LittleEndian, uint32(3))
	_ = binary.Write(&file, binary.LittleEndian, uint64(tensors))
	_ = binary.Write(&file, binary.LittleEndian, uint64(fields))
	file.Write(head.Bytes())
	file.Write(infos.Bytes())
	file.Write(make([]byte, (32-file.Len()%32)%32))
	file.Write(data.Bytes())
	return file.Bytes()
}

package outbox

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/worker"
)

// A segment file is a head and records, one after the other. All numbers are
// little-endian.
//
//	head    magic (8 bytes), marker (8 random bytes), CRC-32C of both
//	record  marker, kind (1 byte), length of the content (4 bytes),
//	        CRC-32C of the content, CRC-32C of all before, content
//
// The marker differs from file to file: what an item puts into its outputs
// cannot pass for a record, even where a damaged record makes the reader look
// for the next one.
const (
	magic      = "beacoob1"
	markerSize = 8
	headSize   = len(magic) + markerSize + 4
	frameSize  = markerSize + 1 + 4 + 4 + 4
)

// The kinds of records.
const (
	kindReport    byte = 1 // the content is an entry in JSON
	kindDelivered byte = 2 // the content is the hash of an item
)

// maxContent bounds the content of one record, in bytes.
const maxContent = 1 << 30

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A segment is one file of the log. All fields but file, name and marker are
// guarded by Dir.mu.
type segment struct {
	name    string
	file    *os.File
	marker  [markerSize]byte
	size    int64 // up to here there are whole records
	synced  int64 // up to here they have reached the disk
	room    int64 // up to here the file has been made
	grown   bool  // and that may not have reached the disk
	syncing bool  // somebody waits for the disk
	failed  error // of the disk; nothing more is written here
	live    int   // reports in here that wait, or are being put
	damaged bool  // keep the file when it is not needed any more
}

func newHead() (head [headSize]byte, marker [markerSize]byte) {
	_, _ = rand.Read(marker[:]) // it never fails
	copy(head[:], magic)
	copy(head[len(magic):], marker[:])
	sealHead(head[:])
	return head, marker
}

func sealHead(head []byte) {
	binary.LittleEndian.PutUint32(head[headSize-4:], crc32.Checksum(head[:headSize-4], castagnoli))
}

func parseHead(content []byte) (marker [markerSize]byte, err error) {
	if len(content) < headSize {
		return marker, fmt.Errorf("the head is cut off after %d bytes", len(content))
	}
	if string(content[:len(magic)]) != magic {
		return marker, errors.New("not a segment of an outbox, or one of another version")
	}
	if crc32.Checksum(content[:headSize-4], castagnoli) != binary.LittleEndian.Uint32(content[headSize-4:]) {
		return marker, errors.New("the checksum of the head does not match")
	}
	copy(marker[:], content[len(magic):])
	return marker, nil
}

// frame puts a marker and checksums before content, which is at record[frameSize:].
func frame(record []byte, marker [markerSize]byte, kind byte) {
	content := record[frameSize:]
	copy(record, marker[:])
	record[markerSize] = kind
	binary.LittleEndian.PutUint32(record[markerSize+1:], uint32(len(content))) //nolint:gosec // at most maxContent
	binary.LittleEndian.PutUint32(record[markerSize+5:], crc32.Checksum(content, castagnoli))
	binary.LittleEndian.PutUint32(record[frameSize-4:], crc32.Checksum(record[:frameSize-4], castagnoli))
}

// unframe reads the frame at the start of b, which may go on after the record.
// ok is false if that is no frame; the record may still be cut off or damaged.
func unframe(b []byte, marker [markerSize]byte) (kind byte, length int, sum uint32, ok bool) {
	if len(b) < frameSize || !bytes.HasPrefix(b, marker[:]) {
		return 0, 0, 0, false
	}
	if crc32.Checksum(b[:frameSize-4], castagnoli) != binary.LittleEndian.Uint32(b[frameSize-4:]) {
		return 0, 0, 0, false
	}
	n := binary.LittleEndian.Uint32(b[markerSize+1:])
	if n > maxContent {
		return 0, 0, 0, false
	}
	return b[markerSize], int(n), binary.LittleEndian.Uint32(b[markerSize+5:]), true
}

// A record is a whole one that scan has found.
type record struct {
	kind   byte
	hash   string
	offset int64 // of the frame
	length int64 // with the frame
	files  []string
}

// A gap is a stretch of a segment that makes no sense.
type gap struct {
	offset, length int64
	err            error
}

// scan reads all whole records of a segment. What a crash has cut off at the
// end is not among the gaps: the records reach to end, the file further.
func scan(content []byte) (records []record, gaps []gap, end int64, err error) {
	marker, err := parseHead(content)
	if err != nil {
		return nil, nil, 0, err
	}
	at := headSize
	for at < len(content) {
		rest := content[at:]
		r, err := readRecord(rest, marker)
		if err == nil {
			r.offset = int64(at)
			records = append(records, r)
			at += int(r.length)
			continue
		}
		if errors.Is(err, errCut) {
			return records, gaps, int64(at), nil
		}
		// Go on at the next record that is whole; there is none after a crash.
		next := len(content)
		for from := at + 1; ; {
			i := bytes.Index(content[from:], marker[:])
			if i < 0 {
				break
			}
			if _, err := readRecord(content[from+i:], marker); err == nil || errors.Is(err, errCut) {
				next = from + i
				break
			}
			from += i + 1
		}
		gaps = append(gaps, gap{offset: int64(at), length: int64(next - at), err: err})
		at = next
	}
	return records, gaps, int64(at), nil
}

// errCut is the error of a record that a crash has cut off.
var errCut = errors.New("the record is cut off")

// readRecord reads the record at the start of b.
func readRecord(b []byte, marker [markerSize]byte) (record, error) {
	kind, length, sum, ok := unframe(b, marker)
	switch {
	case !ok && (len(b) < frameSize && bytes.HasPrefix(marker[:], b[:min(len(b), markerSize)]) || isZero(b[min(frameSize, len(b)):])):
		// The file had grown already, but what belongs there did not arrive, or
		// not all of it.
		return record{}, errCut
	case !ok:
		return record{}, errors.New("no record where one should be")
	case len(b)-frameSize < length:
		return record{}, errCut
	}
	content := b[frameSize : frameSize+length]
	if crc32.Checksum(content, castagnoli) != sum {
		// No report ends in a zero, and no flipped bit makes one of its end: this
		// is one whose end did not arrive, if nothing comes after it.
		if length > 0 && content[length-1] == 0 && isZero(b[frameSize+length:]) {
			return record{}, errCut
		}
		return record{}, errors.New("the checksum of the record does not match")
	}
	r := record{kind: kind, length: int64(frameSize + length)}
	switch kind {
	case kindDelivered:
		r.hash = string(content)
	case kindReport:
		report, err := decode(content)
		if err != nil {
			return record{}, err
		}
		r.hash, r.files = report.Hash, filesOf(report)
	default:
		return record{}, fmt.Errorf("a record of unknown kind %d", kind)
	}
	return r, nil
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// entry is a report in JSON.
type entry struct {
	Hash    []byte // a stranger's text need not be UTF-8
	Outputs map[string]json.RawMessage
	Files   map[string]reference `json:",omitempty"`
	Log     []string
	Failed  bool
	Message string
	Attempt int          `json:",omitempty"`
	Usage   beacon.Usage `json:",omitzero"`
}

// A reference is to a file in the directory: its Path is a name there. It has
// no methods, so JSON does not read the file.
type reference beacon.File

// encode makes a record of a report, with room for the frame.
func encode(r worker.Report) ([]byte, error) {
	e := entry{Hash: []byte(r.Hash), Log: r.Result.Log, Failed: r.Failed, Message: r.Message, Attempt: r.Attempt, Usage: r.Result.Usage, Outputs: make(map[string]json.RawMessage, len(r.Result.Outputs))}
	for name, value := range r.Result.Outputs {
		if f, isFile := value.(beacon.File); isFile {
			if e.Files == nil {
				e.Files = map[string]reference{}
			}
			e.Files[name] = reference(f)
			continue
		}
		raw, isRaw := value.(json.RawMessage)
		if !isRaw {
			var err error
			if raw, err = json.Marshal(value); err != nil {
				return nil, fmt.Errorf("output %s: %w", beacon.Excerpt(name, 80), err)
			}
		}
		e.Outputs[name] = raw
	}
	var b bytes.Buffer
	b.Write(make([]byte, frameSize))
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return nil, err
	}
	if length := b.Len() - frameSize; length > maxContent {
		return nil, fmt.Errorf("the report has %d bytes in JSON, more than the %d that the outbox takes: make the outputs smaller", length, maxContent)
	}
	return b.Bytes(), nil
}

func decode(content []byte) (worker.Report, error) {
	var e entry
	if err := json.Unmarshal(content, &e); err != nil {
		return worker.Report{}, fmt.Errorf("not a report: %w", err)
	}
	r := worker.Report{Hash: string(e.Hash), Failed: e.Failed, Message: e.Message, Attempt: e.Attempt, Result: beacon.Result{Log: e.Log, Outputs: beacon.Outputs{}, Usage: e.Usage}}
	for name, raw := range e.Outputs {
		r.Result.Outputs[name] = raw
	}
	for name, f := range e.Files {
		if !fileName.MatchString(f.Path) {
			return worker.Report{}, fmt.Errorf("not a report: it refers to a file outside of the outbox")
		}
		r.Result.Outputs[name] = beacon.File(f)
	}
	return r, nil
}

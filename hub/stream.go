package hub

import (
	"encoding/base64"
	"encoding/json"
	"net/http"

	"github.com/ultravisor/beacon/hub/pace"
	"github.com/ultravisor/beacon/protocol"
)

// mostFrame is the size of the frames in which output files are streamed.
const mostFrame = 1 << 20

// dispatchStream is Dispatch with progress on the way, in frames. A stream that
// ends without a result or an error has been cut off.
func (h *Hub) dispatchStream(reply responder, r *http.Request, _ []string) {
	item, w, ok := h.begin(reply, r, true)
	if !ok {
		return
	}
	reply.w.Header().Set("Content-Type", "application/octet-stream")
	reply.w.Header().Set(protocol.StreamHeader, protocol.StreamProtocol)
	reply.w.Header().Set("X-Content-Type-Options", "nosniff")
	reply.w.WriteHeader(http.StatusOK)
	out := frames{reply}
	_ = reply.control.Flush() // the submitter sees that the item is taken; a lost one is noticed by its context
	h.follow(r.Context(), item, w, func(n news) bool {
		for _, p := range n.updates {
			if !out.progress(p) {
				return false
			}
		}
		switch {
		case n.overflow:
			out.failure(protocol.Dispatched{
				WorkItemHash: item.Hash, Log: []string{},
				Error: "The stream was read too slowly and has lost data. The result will be at /Beacon/Work/" + item.Hash + ".",
			})
		case n.item != nil:
			out.outcome(h.dispatched(r.Context(), n.item))
		case n.aborted:
			out.failure(protocol.Dispatched{WorkItemHash: item.Hash, Log: []string{}, Error: closingText})
		default:
			return true
		}
		return false
	})
}

// frames writes a stream. Its methods report whether the reader is still there.
type frames struct{ responder }

func (f frames) write(kind protocol.FrameType, payload []byte) bool {
	pace.Limit(f.w, int64(len(payload)))
	return protocol.WriteFrame(f.w, kind, payload) == nil && f.control.Flush() == nil
}

func (f frames) progress(p progress) bool {
	if p.data != nil || p.log != nil {
		fields := map[string]json.RawMessage{}
		if p.data != nil && json.Unmarshal(p.data, &fields) != nil {
			return true // decodeProgress made it of an object
		}
		if p.log != nil {
			log, err := protocol.Encode(p.log)
			if err != nil {
				return true
			}
			fields["Log"] = log
		}
		raw, err := protocol.Encode(fields)
		if err != nil {
			return true
		}
		if !f.write(protocol.FrameProgress, raw) {
			return false
		}
	}
	return p.binary == nil || f.write(protocol.FrameIntermediate, p.binary)
}

// outcome ends the stream. The output file, if there is one, comes as bytes
// before the result and not in it.
func (f frames) outcome(result protocol.Dispatched) {
	if !result.Success {
		f.failure(result)
		return
	}
	var outputs map[string]json.RawMessage
	if json.Unmarshal(result.Outputs, &outputs) == nil {
		data, err := base64.StdEncoding.DecodeString(text(outputs["OutputData"]))
		if err == nil && len(data) > 0 {
			for len(data) > 0 {
				n := min(len(data), mostFrame)
				if !f.write(protocol.FrameOutput, data[:n]) {
					return
				}
				data = data[n:]
			}
			delete(outputs, "OutputData")
			if raw, err := protocol.Encode(outputs); err == nil {
				result.Outputs = raw
			}
		}
	}
	if raw, err := protocol.Encode(result); err == nil {
		f.write(protocol.FrameResult, raw)
	}
}

func (f frames) failure(d protocol.Dispatched) {
	if raw, err := protocol.Encode(d); err == nil {
		f.write(protocol.FrameError, raw)
	}
}

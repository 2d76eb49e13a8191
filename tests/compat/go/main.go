// Answers questions about notes, trees, proofs and tiles with Go's golang.org/x/mod/sumdb, which others wrote: the implementation
// that Go's checksum database runs on, and that the C2SP formats come from. Reads a JSON array of questions from
// standard input, writes one of answers. A question that cannot be answered has the answer {"error": "..."}.
//
// Kept to what Go 1.19 and x/mod 0.7 have, which is what Debian 12 packages; c2sp.go adds what needs newer ones.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8 // of a tile: 256 hashes

type question struct {
	Do       string   `json:"do"`
	Key      string   `json:"key"` // a verifier key, or a signer key
	Keys     []string `json:"keys"`
	Note     string   `json:"note"`
	Text     string   `json:"text"`
	Dir      string   `json:"dir"`
	Old      string   `json:"old"`
	Leaf     []byte   `json:"leaf"`
	Leaves   [][]byte `json:"leaves"`
	Index    int64    `json:"index"`
	Size     int64    `json:"size"`
	Root     []byte   `json:"root"`
	OldSize  int64    `json:"old_size"`
	OldRoot  []byte   `json:"old_root"`
	Proof    [][]byte `json:"proof"`
	Document []byte   `json:"document"`
	Extra    []byte   `json:"extra"`
}

type answer map[string]interface{}

var answers = map[string]func(question) (answer, error){
	"open":        open,
	"sign":        sign,
	"tree":        tree,
	"inclusion":   inclusion,
	"consistency": consistency,
	"log":         readLog,
}

func main() {
	var questions []question
	if err := json.NewDecoder(os.Stdin).Decode(&questions); err != nil {
		log.Fatal(err)
	}
	told := make([]answer, 0, len(questions))
	for _, one := range questions {
		found, err := answer(nil), errors.New("this program was built without "+one.Do)
		if do, known := answers[one.Do]; known {
			found, err = do(one)
		}
		if err != nil {
			found = answer{"error": err.Error()}
		}
		told = append(told, found)
	}
	if err := json.NewEncoder(os.Stdout).Encode(told); err != nil {
		log.Fatal(err)
	}
}

// open opens a signed note: its text, and who signed it.
func open(q question) (answer, error) {
	opened, err := openNote(q.Note, q.Key)
	if err != nil {
		return nil, err
	}
	return answer{"text": opened.Text, "signed": len(opened.Sigs), "unknown": len(opened.UnverifiedSigs)}, nil
}

func openNote(signed, key string) (*note.Note, error) {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return nil, err
	}
	return note.Open([]byte(signed), note.VerifierList(verifier))
}

// sign signs a text, or signs a note once more.
func sign(q question) (answer, error) {
	signer, err := note.NewSigner(q.Key)
	if err != nil {
		return nil, err
	}
	signed, err := note.Sign(&note.Note{Text: q.Text}, signer)
	return answer{"note": string(signed)}, err
}

// tree builds a tree of leaves: its root, all its tiles, the proof of one leaf and of one older tree.
func tree(q question) (answer, error) {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		found := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			found[i] = stored[index]
		}
		return found, nil
	})
	for i, leaf := range q.Leaves {
		hashes, err := tlog.StoredHashes(int64(i), leaf, reader)
		if err != nil {
			return nil, err
		}
		stored = append(stored, hashes...)
	}
	size := int64(len(q.Leaves))
	root, err := tlog.TreeHash(size, reader)
	if err != nil {
		return nil, err
	}
	tiles := map[string][]byte{}
	for _, tile := range tlog.NewTiles(height, 0, size) {
		data, err := tlog.ReadTileData(tile, reader)
		if err != nil {
			return nil, err
		}
		tiles[path(tile)] = data
	}
	found := answer{"root": root[:], "tiles": tiles}
	if q.Index < size {
		proof, err := tlog.ProveRecord(size, q.Index, reader)
		if err != nil {
			return nil, err
		}
		found["inclusion"] = bytesOf(proof)
	}
	if 0 < q.OldSize {
		proof, err := tlog.ProveTree(size, q.OldSize, reader)
		if err != nil {
			return nil, err
		}
		found["consistency"] = bytesOf(proof)
	}
	return found, nil
}

// path is where tlog-tiles serves a tile: without the height that x/mod puts into it.
func path(tile tlog.Tile) string {
	return "tile/" + strings.TrimPrefix(tile.Path(), "tile/"+strconv.Itoa(height)+"/")
}

// inclusion checks that a leaf stands at an index.
func inclusion(q question) (answer, error) {
	root, err := hashOf(q.Root)
	if err != nil {
		return nil, err
	}
	proof, err := hashesOf(q.Proof)
	if err != nil {
		return nil, err
	}
	return answer{}, tlog.CheckRecord(proof, q.Size, root, q.Index, tlog.RecordHash(q.Leaf))
}

// consistency checks that a tree begins with an older one.
func consistency(q question) (answer, error) {
	root, err := hashOf(q.Root)
	if err != nil {
		return nil, err
	}
	oldRoot, err := hashOf(q.OldRoot)
	if err != nil {
		return nil, err
	}
	proof, err := hashesOf(q.Proof)
	if err != nil {
		return nil, err
	}
	return answer{}, tlog.CheckTree(proof, q.Size, root, q.OldSize, oldRoot)
}

// readLog reads a log that was saved as files: the checkpoint, every entry against the tiles below it, and an older checkpoint.
func readLog(q question) (answer, error) {
	signed, err := os.ReadFile(filepath.Join(q.Dir, "checkpoint"))
	if err != nil {
		return nil, err
	}
	now, err := checkpoint(string(signed), q.Key)
	if err != nil {
		return nil, err
	}
	reader := tlog.TileHashReader(now, &files{q.Dir})
	entries := int64(0)
	for index := int64(0); index*256 < now.N; index++ {
		width := now.N - index*256
		if width > 256 {
			width = 256
		}
		bundle, err := os.ReadFile(filepath.Join(q.Dir, strings.Replace(path(tlog.Tile{H: height, L: 0, N: index, W: int(width)}), "tile/0/", "tile/entries/", 1)))
		if err != nil {
			return nil, err
		}
		for ; len(bundle) > 0; entries++ {
			if len(bundle) < 2 || len(bundle) < 2+int(binary.BigEndian.Uint16(bundle)) {
				return nil, fmt.Errorf("entry %d is cut off", entries)
			}
			length := int(binary.BigEndian.Uint16(bundle))
			leaf := bundle[2 : 2+length]
			bundle = bundle[2+length:]
			proof, err := tlog.ProveRecord(now.N, entries, reader)
			if err != nil {
				return nil, err
			}
			if err := tlog.CheckRecord(proof, now.N, now.Hash, entries, tlog.RecordHash(leaf)); err != nil {
				return nil, fmt.Errorf("entry %d: %w", entries, err)
			}
		}
	}
	if entries != now.N {
		return nil, fmt.Errorf("%d entries in a log of %d", entries, now.N)
	}
	if q.Old != "" {
		old, err := checkpoint(q.Old, q.Key)
		if err != nil {
			return nil, err
		}
		proof, err := tlog.ProveTree(now.N, old.N, reader)
		if err != nil {
			return nil, err
		}
		if err := tlog.CheckTree(proof, now.N, now.Hash, old.N, old.Hash); err != nil {
			return nil, err
		}
	}
	return answer{"size": now.N, "root": now.Hash[:]}, nil
}

// checkpoint opens a checkpoint: a note whose text is origin, size and root.
func checkpoint(signed, key string) (tlog.Tree, error) {
	opened, err := openNote(signed, key)
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 {
		return tlog.Tree{}, errors.New("no checkpoint")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, err
}

// files gives the tiles of a log that was saved as files.
type files struct{ dir string }

func (f *files) Height() int { return height }

func (f *files) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	found := make([][]byte, len(tiles))
	for i, tile := range tiles {
		data, err := os.ReadFile(filepath.Join(f.dir, path(tile)))
		if err != nil {
			return nil, err
		}
		found[i] = data
	}
	return found, nil
}

func (f *files) SaveTiles([]tlog.Tile, [][]byte) {}

func hashOf(data []byte) (tlog.Hash, error) {
	var found tlog.Hash
	if copy(found[:], data) != len(data) || len(data) != tlog.HashSize {
		return found, fmt.Errorf("no hash: %s", base64.StdEncoding.EncodeToString(data))
	}
	return found, nil
}

func hashesOf(data [][]byte) ([]tlog.Hash, error) {
	found := make([]tlog.Hash, len(data))
	for i, one := range data {
		var err error
		if found[i], err = hashOf(one); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func bytesOf(hashes []tlog.Hash) [][]byte {
	found := make([][]byte, len(hashes))
	for i := range hashes {
		found[i] = hashes[i][:]
	}
	return found
}

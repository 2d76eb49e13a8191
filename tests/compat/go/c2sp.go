//go:build go1.24 && !packaged

package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Witnesses' cosignatures, proof files and the client of tlog-tiles, by filippo.io/torchwood: its author wrote those formats.
func init() {
	answers["cosign"] = cosign
	answers["cosigned"] = cosigned
	answers["proof"] = proof
	answers["format proof"] = formatProof
	answers["client"] = client
}

// cosign adds a witness's signature to a checkpoint, made with a key of 32 bytes.
func cosign(q question) (answer, error) {
	signer, err := torchwood.NewCosignatureSigner(q.Text, ed25519.NewKeyFromSeed(q.Root))
	if err != nil {
		return nil, err
	}
	opened, err := openNote(q.Note, q.Key)
	if err != nil {
		return nil, err
	}
	signed, err := note.Sign(opened, signer)
	return answer{"note": string(signed), "key": signer.Verifier().String()}, err
}

// policy wants the log's signature and that of every witness.
func policy(q question) (torchwood.Policy, error) {
	verifier, err := note.NewVerifier(q.Key)
	if err != nil {
		return nil, err
	}
	all := []torchwood.Policy{torchwood.SingleVerifierPolicy(verifier), torchwood.OriginPolicy(verifier.Name())}
	for _, key := range q.Keys {
		witness, err := torchwood.NewCosignatureVerifier(key)
		if err != nil {
			return nil, err
		}
		all = append(all, torchwood.SingleVerifierPolicy(witness))
	}
	return torchwood.ThresholdPolicy(len(all), all...), nil
}

// cosigned checks a checkpoint that witnesses signed too, and tells when they did.
func cosigned(q question) (answer, error) {
	wanted, err := policy(q)
	if err != nil {
		return nil, err
	}
	found, opened, err := torchwood.VerifyCheckpoint([]byte(q.Note), wanted)
	if err != nil {
		return nil, err
	}
	times := map[string]int64{}
	for _, signature := range opened.Sigs {
		if moment, err := torchwood.CosignatureTimestamp(signature); err == nil && signature.Name != found.Origin {
			times[signature.Name] = moment
		}
	}
	return answer{"origin": found.Origin, "size": found.N, "root": found.Hash[:], "times": times}, nil
}

// proof checks a proof file, and gives its extra data.
func proof(q question) (answer, error) {
	wanted, err := policy(q)
	if err != nil {
		return nil, err
	}
	if err := torchwood.VerifyProof(wanted, tlog.RecordHash(q.Leaf), q.Document); err != nil {
		return nil, err
	}
	extra, err := torchwood.ProofExtraData(q.Document)
	return answer{"extra": extra}, err
}

// formatProof writes a proof file.
func formatProof(q question) (answer, error) {
	hashes, err := hashesOf(q.Proof)
	if err != nil {
		return nil, err
	}
	return answer{"document": torchwood.FormatProofWithExtraData(q.Index, q.Extra, hashes, []byte(q.Note))}, nil
}

// client reads a log that was saved as files with the client that others read logs with, every entry of it.
func client(q question) (answer, error) {
	signed, err := os.ReadFile(filepath.Join(q.Dir, "checkpoint"))
	if err != nil {
		return nil, err
	}
	now, err := checkpoint(string(signed), q.Key)
	if err != nil {
		return nil, err
	}
	tiles, err := torchwood.NewTileFS(os.DirFS(q.Dir))
	if err != nil {
		return nil, err
	}
	reading, err := torchwood.NewClient(tiles)
	if err != nil {
		return nil, err
	}
	var leaves [][]byte
	for index, leaf := range reading.AllEntries(context.Background(), now, 0) {
		if index != int64(len(leaves)) {
			return nil, fmt.Errorf("entry %d stands at %d", len(leaves), index)
		}
		leaves = append(leaves, leaf)
	}
	if err := reading.Err(); err != nil {
		return nil, err
	}
	if int64(len(leaves)) != now.N {
		return nil, errors.New("entries are missing")
	}
	return answer{"leaves": leaves}, nil
}

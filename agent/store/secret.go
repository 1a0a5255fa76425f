package store

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	bolt "go.etcd.io/bbolt"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

const (
	keySize = 32
	// sealedPrefix marks a sealed value and its scheme: AES-256-GCM with a random
	// nonce, bound to the secret's uid and the value's name.
	sealedPrefix = "aes256gcm:"
	keyProbe     = "gpuhost state key"
)

// LoadOrCreateKey reads the 32 bytes at path, or draws them and writes the file
// with mode 0600. It refuses a file of another size and one that others can read.
func LoadOrCreateKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return createKey(path)
	}
	if err != nil {
		return nil, writeFault("read key "+path, err)
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, writeFault("read key "+path, err)
	case len(key) != keySize:
		return nil, fault.New(fault.Invalid, "read key "+path, "it has %d bytes, not %d", len(key), keySize)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fault.New(fault.Invalid, "read key "+path, "others can read it").WithHint("chmod 600 %s", path)
	}
	return key, nil
}

// createKey never leaves half a key: the file gets its name when it is synced,
// and only if nobody else was faster.
func createKey(path string) ([]byte, error) {
	key := make([]byte, keySize)
	rand.Read(key)
	file, err := os.CreateTemp(filepath.Dir(path), ".key-*")
	if err != nil {
		return nil, writeFault("make key "+path, err)
	}
	defer os.Remove(file.Name())
	_, err = file.Write(key)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return nil, writeFault("make key "+path, err)
	}
	switch err := os.Link(file.Name(), path); {
	case errors.Is(err, fs.ErrExist):
		return LoadOrCreateKey(path)
	case err != nil:
		return nil, writeFault("make key "+path, err)
	}
	return key, writeFault("make key "+path, syncDir(filepath.Dir(path)))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func newSeal(key []byte) (cipher.AEAD, error) {
	if len(key) != keySize {
		return nil, fault.New(fault.Invalid, "open state file", "the key has %d bytes, not %d", len(key), keySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "open state file", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// checkKey compares the key with the one the file was made with, before any
// secret is lost to a wrong one.
func (s *Store) checkKey() error {
	var probe []byte
	err := s.db.View(func(tx *bolt.Tx) error {
		probe = bytes.Clone(tx.Bucket([]byte(bucketMeta)).Get([]byte("key")))
		return nil
	})
	if err != nil {
		return fault.Wrap(fault.Internal, "read state file "+s.path, err)
	}
	if probe == nil {
		err := s.db.Update(func(tx *bolt.Tx) error {
			return tx.Bucket([]byte(bucketMeta)).Put([]byte("key"), []byte(s.sealValue(keyProbe, keyProbe)))
		})
		return writeFault("write state file "+s.path, err)
	}
	if _, err := s.openValue(string(probe), keyProbe); err != nil {
		return fault.New(fault.Invalid, "open state file "+s.path, "it was made with another key").
			WithHint("put the key file of this host back; it is part of every backup")
	}
	return nil
}

func (s *Store) sealValue(plain, boundTo string) string {
	sealed := s.seal.Seal(nil, nil, []byte(plain), []byte(boundTo))
	return sealedPrefix + base64.StdEncoding.EncodeToString(sealed)
}

func (s *Store) openValue(text, boundTo string) (string, error) {
	encoded, is := strings.CutPrefix(text, sealedPrefix)
	if !is {
		return "", fault.New(fault.Internal, "open sealed value", "it is not sealed")
	}
	sealed, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return "", fault.Wrap(fault.Internal, "open sealed value", err)
	}
	plain, err := s.seal.Open(nil, nil, sealed, []byte(boundTo))
	return string(plain), fault.Wrap(fault.Internal, "open sealed value", err)
}

// sealed is o as it goes to disk, opened the way back; only secrets differ.
func (s *Store) sealed(o *spec.Object) (*spec.Object, error) {
	return mapSecret(o, func(value, boundTo string) (string, error) { return s.sealValue(value, boundTo), nil })
}

func (s *Store) opened(o *spec.Object) (*spec.Object, error) { return mapSecret(o, s.openValue) }

// mapSecret is a copy of o with f of every value of a secret.
func mapSecret(o *spec.Object, f func(value, boundTo string) (string, error)) (*spec.Object, error) {
	data, is := o.Spec.(*spec.SecretSpec)
	if !is {
		return o, nil
	}
	mapped := &spec.SecretSpec{Data: make(map[string]string, len(data.Data))}
	for name, value := range data.Data {
		text, err := f(value, string(o.Metadata.UID)+"/"+name)
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", o.Ref(), name, err)
		}
		mapped.Data[name] = text
	}
	copied := *o
	copied.Spec = mapped
	return &copied, nil
}

package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"fmt"

	"github.com/google/renameio/v2"

	"github.com/gpuhost/gpuhost/agent/spec"
)

const keySize = 32

func createKey(path string) ([]byte, error) {
	key := make([]byte, keySize)
	_, _ = rand.Read(key) // never fails: the runtime ends the process instead
	if err := renameio.WriteFile(path, key, 0o600); err != nil {
		return nil, fmt.Errorf("write key: %w", err)
	}
	return key, nil
}

// sealed is an object as it lies in the file. A secret's values are in Sealed,
// encrypted and bound to the object's uid; its Object carries none.
type sealed struct {
	Object json.RawMessage `json:"object"`
	Sealed []byte          `json:"sealed,omitempty"`
}

func (s *Store) seal(o *spec.Object) ([]byte, error) {
	plain := *o
	plain.Status = nil
	var out sealed
	if in, secret := o.Spec.(*spec.SecretSpec); secret {
		data, err := json.Marshal(in.Data)
		if err != nil {
			return nil, fmt.Errorf("encode the values of %s: %w", o.Ref(), err)
		}
		if out.Sealed, err = s.encrypt(data, o.Metadata.UID); err != nil {
			return nil, err
		}
		plain.Spec = &spec.SecretSpec{}
	}
	var err error
	if out.Object, err = json.Marshal(&plain); err != nil {
		return nil, fmt.Errorf("encode %s: %w", o.Ref(), err)
	}
	return json.Marshal(out)
}

func (s *Store) unseal(text []byte) (*spec.Object, error) {
	var in sealed
	if err := json.Unmarshal(text, &in); err != nil {
		return nil, fmt.Errorf("decode an object: %w", err)
	}
	o := new(spec.Object)
	if err := o.UnmarshalStored(in.Object); err != nil {
		return nil, fmt.Errorf("decode an object: %w", err)
	}
	secret, is := o.Spec.(*spec.SecretSpec)
	if !is {
		return o, nil
	}
	data, err := s.decrypt(in.Sealed, o.Metadata.UID)
	if err != nil {
		return nil, fmt.Errorf("unseal %s: %w", o.Ref(), err)
	}
	if err := json.Unmarshal(data, &secret.Data); err != nil {
		return nil, fmt.Errorf("decode the values of %s: %w", o.Ref(), err)
	}
	return o, nil
}

func (s *Store) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher(s.key)
	if err != nil {
		return nil, fmt.Errorf("use the key: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func (s *Store) encrypt(data []byte, uid spec.UID) ([]byte, error) {
	aead, err := s.aead()
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, data, []byte(uid)), nil
}

func (s *Store) decrypt(data []byte, uid spec.UID) ([]byte, error) {
	aead, err := s.aead()
	if err != nil {
		return nil, err
	}
	return aead.Open(nil, nil, data, []byte(uid))
}

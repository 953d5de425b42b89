package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/minigate/minigate/internal/jws"
	"github.com/minigate/minigate/internal/settings"
)

// signer signs what phones carry to the backend: with the configured keys, or
// with one that is made once and kept in the data directory.
func signer(cfg *Config) (*jws.Signer, error) {
	if len(cfg.Keys.Signing) == 0 {
		const name = "signing.key"
		key, err := dataKey(cfg.Data, name)
		if err != nil {
			return nil, err
		}
		s, err := jws.New(key[:])
		if errors.Is(err, jws.ErrKey) { // damaged, or one of the 2^-32 of random keys that are none
			return nil, fmt.Errorf("data: %s is no key: remove it and start again", filepath.Join(cfg.Data, name))
		}
		return s, err
	}
	keys := make([][]byte, len(cfg.Keys.Signing))
	for i, k := range cfg.Keys.Signing {
		key, err := jws.ParseKey(k.Value())
		if err != nil {
			return nil, fmt.Errorf("keys.signing: %w", err)
		}
		keys[i] = key
	}
	return jws.New(keys...)
}

// checkSigning finds mistakes in keys.signing.
func checkSigning(keys []settings.Secret, report func(path, problem string)) {
	for i, k := range keys {
		if _, err := jws.ParseKey(k.Value()); err != nil {
			report(fmt.Sprintf("signing[%d]", i), err.Error())
		}
	}
}

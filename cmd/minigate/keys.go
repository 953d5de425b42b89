package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/auth/connjwt"
	"github.com/minigate/minigate/internal/settings"
)

// dataKey is a key that is made once and kept beside the data it protects.
func dataKey(dir, name string) (key [32]byte, err error) {
	file := filepath.Join(dir, name)
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		raw, err = makeKey(file, len(key))
	}
	if err == nil && len(raw) != len(key) {
		err = fmt.Errorf("%s has %d bytes instead of %d", file, len(raw), len(key))
	}
	if err != nil {
		return key, fmt.Errorf("data: %w", err)
	}
	return [32]byte(raw), nil
}

// ticketKeys are the configured ones, or one of the data directory.
func ticketKeys(cfg *Config) ([]auth.TicketKey, error) {
	if len(cfg.Keys.Tickets) > 0 {
		return cfg.Keys.Tickets, nil
	}
	key, err := dataKey(cfg.Data, "ticket.key")
	if err != nil {
		return nil, err
	}
	return []auth.TicketKey{{ID: "data", Secret: settings.Secret(base64.StdEncoding.EncodeToString(key[:]))}}, nil
}

// clientTokens are the verifiers of JWTs that clients connect and subscribe
// with; nil where they are off.
func clientTokens(cfg *Config, reg prometheus.Registerer) (connect, subscribe *connjwt.Verifier, err error) {
	m := connjwt.NewMetrics(reg)
	if connect, err = connjwt.New(cfg.Client.Token, m); err != nil {
		return nil, nil, fmt.Errorf("client.token: %w", err)
	}
	if !cfg.Client.SubscriptionToken.Enabled {
		return connect, connect, nil
	}
	if subscribe, err = connjwt.New(cfg.Client.SubscriptionToken.Settings, m); err != nil {
		return nil, nil, fmt.Errorf("client.subscription_token: %w", err)
	}
	return connect, subscribe, nil
}

// makeKey writes a new key to file, whole or not at all: half a key
// would keep every later start from succeeding.
func makeKey(file string, size int) (raw []byte, err error) {
	raw = make([]byte, size)
	_, _ = rand.Read(raw) // never fails
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return nil, err
	}
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return nil, err
	}
	return raw, nil
}

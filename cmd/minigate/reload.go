package main

import (
	"log/slog"
	"os"

	"github.com/minigate/minigate/internal/apikey"
)

// reloadKeys reads the configuration again and lets its API keys count from now
// on. Nothing else of it is taken over. One that serve would refuse changes
// nothing.
func (s *server) reloadKeys(file string) {
	var change apikey.Change
	cfg, err := loadConfig(file, os.Environ())
	if err == nil {
		change, err = s.keys.Replace(cfg.API.Keys)
	}
	if err != nil {
		slog.Error("the API keys stay as they were, since the configuration is refused", "error", err)
		return
	}
	slog.Info("API keys read again", "keys", len(cfg.API.Keys), "added", change.Added, "removed", change.Removed, "changed", change.Changed)
}

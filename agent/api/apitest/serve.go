package apitest

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/gpuhost/gpuhost/agent/api"
)

// Serve answers for the backend on a socket of its own until stop is called,
// which also removes the socket. An empty Log discards.
func Serve(backend *Backend, options api.Options) (address string, stop func() error, err error) {
	dir, err := os.MkdirTemp("", "api") // short: a socket's path has 108 bytes
	if err != nil {
		return "", nil, err
	}
	path := filepath.Join(dir, "sock")
	listener, err := api.Listen(path)
	if err != nil {
		return "", nil, err
	}
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- api.NewServer(options, backend.API()).Serve(ctx, listener) }()
	return "unix://" + path, func() error {
		cancel()
		err := <-served
		if removeErr := os.RemoveAll(dir); err == nil {
			err = removeErr
		}
		return err
	}, nil
}

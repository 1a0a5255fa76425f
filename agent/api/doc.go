// Package api is the agent's face to programs: HTTP and JSON under /v1 over a
// unix socket whose peers the kernel names.
//
// One table of routes ([Routes]) holds method, path, access, handler and types;
// the multiplexer and the OpenAPI document are both made from it. The package
// decides who may ask what and what the wire carries. What is behind it are the
// interfaces of ports.go.
//
//	listener, err := api.Listen("/run/gpuhost/gpuhost.sock")
//	server := api.NewServer(api.Options{…}, backend)
//	err = server.Serve(ctx, listener)
//
// Neighbours: agent/client is the other end, agent/frame the language of exec.
package api

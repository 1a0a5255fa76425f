// Package service stands behind the API's routes: it answers the interfaces of
// agent/api from the loop, the store and the rooms. It decides nothing itself;
// it translates between the wire's words and theirs.
package service

package oci

import (
	"bufio"
	"bytes"
	"strconv"
	"strings"

	"github.com/gpuhost/gpuhost/isolation"
)

// maxID is the highest uid and gid of a container: the tenant's range is 65,536 long.
const maxID = 65_535

// Accounts reads one of the image's own files of accounts, "passwd" or "group".
// It must open it inside the root without following links and bound its size.
type Accounts func(file string) ([]byte, error)

// ResolveUser turns a USER as images write it ("", "1000", "1000:1000", "app",
// "app:staff") into numbers. Numbers are taken as they are; names are looked
// up with accounts. A user without a group gets the group of its passwd line
// when it is a name, else group 0. Nil accounts: only numbers are taken.
func ResolveUser(user string, accounts Accounts) (isolation.User, error) {
	if user == "" {
		return isolation.User{}, nil
	}
	name, group, hasGroup := strings.Cut(user, ":")
	resolved, err := resolveName(name, accounts)
	if err != nil || !hasGroup {
		return resolved, err
	}
	resolved.GID, err = resolveGroup(group, accounts)
	return resolved, err
}

func resolveName(name string, accounts Accounts) (isolation.User, error) {
	if uid, numeric, err := number(name); numeric {
		return isolation.User{UID: uid}, err
	}
	line, err := lookUp(name, "passwd", accounts)
	if err != nil {
		return isolation.User{}, err
	}
	if len(line) < 4 {
		return isolation.User{}, refuse("passwd line of user %.40q has no uid and gid", name)
	}
	uid, uidNumeric, err := number(line[2])
	if err != nil || !uidNumeric {
		return isolation.User{}, refuse("uid %.40q of user %.40q is not 0 to %d", line[2], name, maxID)
	}
	gid, gidNumeric, err := number(line[3])
	if err != nil || !gidNumeric {
		return isolation.User{}, refuse("gid %.40q of user %.40q is not 0 to %d", line[3], name, maxID)
	}
	return isolation.User{UID: uid, GID: gid}, nil
}

func resolveGroup(name string, accounts Accounts) (uint32, error) {
	if gid, numeric, err := number(name); numeric {
		return gid, err
	}
	line, err := lookUp(name, "group", accounts)
	if err != nil {
		return 0, err
	}
	if len(line) < 3 {
		return 0, refuse("group line of %.40q has no gid", name)
	}
	gid, numeric, err := number(line[2])
	if err != nil || !numeric {
		return 0, refuse("gid %.40q of group %.40q is not 0 to %d", line[2], name, maxID)
	}
	return gid, nil
}

// number parses an id. Digits alone are a number, however large: one that
// does not fit is refused and never looked up as a name (CVE-2024-40635).
func number(text string) (id uint32, numeric bool, err error) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, false, nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n > maxID {
		return 0, true, refuse("id %.40q is not 0 to %d", text, maxID)
	}
	return uint32(n), true, nil
}

func lookUp(name, file string, accounts Accounts) ([]string, error) {
	if !plausibleName(name) {
		return nil, refuse("account name %.40q is not one", name)
	}
	if accounts == nil {
		return nil, refuse("%.40q is a name", name).WithHint("give a number, UID or UID:GID")
	}
	text, err := accounts(file)
	if err != nil {
		return nil, refuse("account %.40q cannot be looked up: %w", name, err)
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if fields[0] == name {
			return fields, nil
		}
	}
	return nil, refuse("account %.40q is not in the image's /etc/%s", name, file).
		WithHint("set user to a number")
}

func plausibleName(name string) bool {
	if name == "" || len(name) > 64 {
		return false
	}
	for _, r := range name {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		case r == '_', r == '-', r == '.', r == '$':
		default:
			return false
		}
	}
	return true
}

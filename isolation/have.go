package isolation

// Have is one instance's container as observed.
type Have struct {
	// Image is what the container was made from or, where one has to be made, what
	// the tenant has of the lease's image.
	Image     Image          `json:"image,omitzero"`
	Container ContainerState `json:"container"`
	Cgroup    CgroupState    `json:"cgroup"`
	Nodes     NodesState     `json:"nodes"`
	Pin       PinState       `json:"pin,omitempty"`
	LogAlive  bool           `json:"logAlive"`
	// Controllers are the cgroup controllers of this machine.
	Controllers []string `json:"controllers,omitempty"`
}

// Running says whether the tenant's own code is running.
func (h Have) Running() bool { return h.Container.Task.Status == TaskRunning }

// settle gives a lease the user that the container runs as, if there is one.
func (c ContainerState) settle(lease Lease) Lease {
	if !c.Container {
		return lease
	}
	return lease.As(c.User)
}

// ends says whether there is something that must be stopped first: a task that
// runs or waits, or processes whose task is gone.
func (h Have) ends() bool {
	switch h.Container.Task.Status {
	case TaskCreated, TaskRunning:
		return true
	}
	return h.Cgroup.Populated
}

// remains names what is left of a task, the task itself first.
func (h Have) remains() []string {
	var left []string
	add := func(there bool, what string) {
		if there {
			left = append(left, what)
		}
	}
	add(h.Container.Task.Status != TaskNone, "task")
	add(h.Cgroup.Exists, "cgroup")
	add(len(h.Nodes.Nodes) > 0, "device nodes")
	add(h.Pin != PinNone, "network namespace pin")
	add(h.LogAlive, "log writer")
	return left
}

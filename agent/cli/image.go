package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
)

func (a *app) imageCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "Images, kept for each tenant apart", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(
		&cobra.Command{Use: "list", Short: "List images", Args: args(0, 0, "no arguments"),
			RunE: func(cmd *cobra.Command, _ []string) error { return a.imageList(cmd.Context()) }},
		a.imagePullCommand(), a.imageImportCommand(),
		&cobra.Command{Use: "rm IMAGE...", Short: "Remove images", Args: args(1, -1, "an image"), ValidArgsFunction: a.completeImages,
			RunE: func(cmd *cobra.Command, names []string) error { return a.imageRemove(cmd.Context(), names) }},
		&cobra.Command{Use: "prune", Short: "Remove images that no instance uses", Args: args(0, 0, "no arguments"),
			RunE: func(cmd *cobra.Command, _ []string) error { return a.imagePrune(cmd.Context()) }},
	)
	return cmd
}

func (a *app) imagePullCommand() *cobra.Command {
	var secret string
	cmd := &cobra.Command{Use: "pull IMAGE", Short: "Fetch an image before it is needed", Args: args(1, 1, "an image"),
		RunE: func(cmd *cobra.Command, given []string) error { return a.imagePull(cmd.Context(), given[0], secret) }}
	cmd.Flags().StringVar(&secret, "secret", "", "the secret with the registry's username and password")
	return cmd
}

func (a *app) imageImportCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{Use: "import FILE --name NAME", Short: "Import an OCI archive; - is standard input", Args: args(1, 1, "a file"),
		RunE: func(cmd *cobra.Command, given []string) error {
			if name == "" {
				return fault.New(fault.Invalid, cmd.CommandPath(), "wants --name NAME, what instances call the image").WithHint("%s --help", cmd.CommandPath())
			}
			return a.imageImport(cmd.Context(), given[0], name)
		}}
	cmd.Flags().StringVar(&name, "name", "", "what instances call the image, for example tools:1")
	return cmd
}

func (a *app) imageList(ctx context.Context) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	images, err := c.Images(ctx, a.tenant)
	if err != nil {
		return err
	}
	return a.showImages(images)
}

func (a *app) showImages(images []api.Image) error {
	return a.show(api.List[api.Image]{Items: images}, func() []string {
		names := make([]string, len(images))
		for i, image := range images {
			names[i] = image.Name
		}
		return names
	}, func() *table {
		t := newTable("TENANT", "IMAGE", "SIZE", "AGE", "USED BY", "DIGEST")
		for _, image := range images {
			t.add(image.Tenant, image.Name, size(image.Bytes), ageOf(image.CreatedAt), usedText(image.UsedBy), a.digest(image.Digest))
		}
		return t
	})
}

func usedText(names []string) string {
	if len(names) > 1 {
		return fmt.Sprintf("%s and %d more", names[0], len(names)-1)
	}
	if len(names) == 1 {
		return names[0]
	}
	return ""
}

// digest is short where the table is for eyes.
func (a *app) digest(text string) string {
	const short = len("sha256:") + 12
	if a.wide() || len(text) <= short {
		return text
	}
	return text[:short]
}

func (a *app) imagePull(ctx context.Context, image, secret string) error {
	tenant, err := a.ownTenant(ctx)
	if err != nil {
		return err
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	change, err := c.PullImage(ctx, api.PullRequest{Tenant: tenant, Image: image, Secret: secret})
	if err != nil {
		return err
	}
	if err := a.finish(ctx, change); err != nil || a.noWait {
		return err
	}
	return a.showChanges([]api.ChangeRef{change}, func(api.ChangeRef) string { return image })
}

func (a *app) imageImport(ctx context.Context, file, name string) error {
	tenant, err := a.ownTenant(ctx)
	if err != nil {
		return err
	}
	archive, length, err := a.openArchive(file)
	if err != nil {
		return err
	}
	defer archive.Close()
	c, err := a.connect()
	if err != nil {
		return err
	}
	images, err := c.ImportImage(ctx, api.ImportRequest{Tenant: tenant, Name: name, Size: length}, archive)
	if err != nil {
		return err
	}
	return a.showImages(images)
}

// openArchive opens a regular file, or standard input of unknown length.
func (a *app) openArchive(file string) (io.ReadCloser, int64, error) {
	if file == "-" {
		return io.NopCloser(a.In), -1, nil
	}
	opened, err := os.Open(file)
	if err != nil {
		return nil, 0, readError(file, err)
	}
	info, err := opened.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fault.New(fault.Invalid, "read "+file, "is not a regular file")
	}
	if err != nil {
		opened.Close()
		return nil, 0, err
	}
	return opened, info.Size(), nil
}

func (a *app) imageRemove(ctx context.Context, names []string) error {
	tenant, err := a.ownTenant(ctx)
	if err != nil {
		return err
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	var failures []error
	for _, name := range names {
		if err := c.RemoveImage(ctx, tenant, name); err != nil {
			failures = append(failures, err)
			continue
		}
		fmt.Fprintln(a.Out, printable(name))
	}
	return a.firstOf(failures)
}

func (a *app) imagePrune(ctx context.Context) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	result, err := c.PruneImages(ctx, a.tenant)
	if err != nil {
		return err
	}
	if a.structured() {
		return a.show(result, nil, nil)
	}
	for _, image := range result.Removed {
		fmt.Fprintln(a.Out, printable(image.Tenant+" "+image.Name))
	}
	a.say("freed %s", size(result.FreedBytes))
	return nil
}

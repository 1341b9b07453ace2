// A CRI runtime without containers: what it is told to run runs, until it is told to stop or its time is over.
//
// It stands below a real kubelet whose traffic to the API server is measured. Of that traffic, nothing but the images and
// the times that things take depends on the runtime. A container's environment says what it does: RUN_SECONDS (it then
// ends with EXIT_CODE), READY_SECONDS (before it, commands of probes fail), STOP_SECONDS (after SIGTERM).
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

type container struct {
	status      *cri.ContainerStatus
	sandbox     string
	environment map[string]string
}

// seconds is the time that the environment gives, or none.
func (c *container) seconds(name string) time.Duration {
	number, _ := strconv.ParseFloat(c.environment[name], 64)
	return time.Duration(number * float64(time.Second))
}

type runtime struct {
	cri.UnimplementedRuntimeServiceServer
	cri.UnimplementedImageServiceServer

	mutex      sync.Mutex
	sandboxes  map[string]*cri.PodSandboxStatus
	containers map[string]*container
	images     map[string]*cri.Image
	next       uint32
	start      time.Duration
	root       string
}

func main() {
	socket := flag.String("socket", "/run/fakecri.sock", "unix socket to serve on")
	images := flag.Int("images", 50, "images that are there from the start")
	start := flag.Duration("start", 0, "how long the start of a container takes")
	root := flag.String("root", "/", "folder whose file system is reported as that of images")
	flag.Parse()
	os.Remove(*socket)
	listener, err := net.Listen("unix", *socket)
	if err != nil {
		log.Fatal(err)
	}
	r := &runtime{
		sandboxes: map[string]*cri.PodSandboxStatus{}, containers: map[string]*container{},
		images: map[string]*cri.Image{}, start: *start, root: *root,
	}
	for number := range *images {
		r.addImage(fmt.Sprintf("registry.k8s.io/fidelity/image-%02d:v1.36.%d", number, number), uint64(10+number)<<20)
	}
	server := grpc.NewServer()
	cri.RegisterRuntimeServiceServer(server, r)
	cri.RegisterImageServiceServer(server, r)
	log.Fatal(server.Serve(listener))
}

func identifier() string {
	bytes := make([]byte, 32)
	rand.Read(bytes)
	return hex.EncodeToString(bytes)
}

func (r *runtime) addImage(name string, size uint64) *cri.Image {
	digest := identifier()
	repository := name
	for at := len(name) - 1; at > 0 && name[at] != '/'; at-- {
		if name[at] == ':' {
			repository = name[:at]
			break
		}
	}
	image := &cri.Image{
		Id: "sha256:" + digest, RepoTags: []string{name}, RepoDigests: []string{repository + "@sha256:" + digest},
		Size: size, Spec: &cri.ImageSpec{Image: name},
	}
	r.images[name] = image
	return image
}

func (r *runtime) Version(context.Context, *cri.VersionRequest) (*cri.VersionResponse, error) {
	return &cri.VersionResponse{Version: "0.1.0", RuntimeName: "containerd", RuntimeVersion: "v2.1.4", RuntimeApiVersion: "v1"}, nil
}

func (r *runtime) Status(context.Context, *cri.StatusRequest) (*cri.StatusResponse, error) {
	return &cri.StatusResponse{
		Status: &cri.RuntimeStatus{Conditions: []*cri.RuntimeCondition{
			{Type: cri.RuntimeReady, Status: true}, {Type: cri.NetworkReady, Status: true},
		}},
		RuntimeHandlers: []*cri.RuntimeHandler{
			{Name: "", Features: &cri.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: true}},
			{Name: "runc", Features: &cri.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: true}},
		},
		Features: &cri.RuntimeFeatures{SupplementalGroupsPolicy: true},
	}, nil
}

func (r *runtime) RuntimeConfig(context.Context, *cri.RuntimeConfigRequest) (*cri.RuntimeConfigResponse, error) {
	return &cri.RuntimeConfigResponse{Linux: &cri.LinuxRuntimeConfiguration{CgroupDriver: cri.CgroupDriver_CGROUPFS}}, nil
}

func (r *runtime) UpdateRuntimeConfig(context.Context, *cri.UpdateRuntimeConfigRequest) (*cri.UpdateRuntimeConfigResponse, error) {
	return &cri.UpdateRuntimeConfigResponse{}, nil
}

func (r *runtime) RunPodSandbox(_ context.Context, request *cri.RunPodSandboxRequest) (*cri.RunPodSandboxResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	id, config := identifier(), request.Config
	r.next++
	r.sandboxes[id] = &cri.PodSandboxStatus{
		Id: id, Metadata: config.Metadata, State: cri.PodSandboxState_SANDBOX_READY, CreatedAt: time.Now().UnixNano(),
		Network: &cri.PodSandboxNetworkStatus{Ip: fmt.Sprintf("10.244.%d.%d", r.next/250%250, 2+r.next%250)},
		Linux: &cri.LinuxPodSandboxStatus{
			Namespaces: &cri.Namespace{Options: config.GetLinux().GetSecurityContext().GetNamespaceOptions()},
		},
		Labels: config.Labels, Annotations: config.Annotations, RuntimeHandler: request.RuntimeHandler,
	}
	return &cri.RunPodSandboxResponse{PodSandboxId: id}, nil
}

func (r *runtime) StopPodSandbox(_ context.Context, request *cri.StopPodSandboxRequest) (*cri.StopPodSandboxResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if sandbox := r.sandboxes[request.PodSandboxId]; sandbox != nil {
		sandbox.State = cri.PodSandboxState_SANDBOX_NOTREADY
	}
	for _, held := range r.containers {
		if held.sandbox == request.PodSandboxId {
			held.exit(137)
		}
	}
	return &cri.StopPodSandboxResponse{}, nil
}

func (r *runtime) RemovePodSandbox(_ context.Context, request *cri.RemovePodSandboxRequest) (*cri.RemovePodSandboxResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	delete(r.sandboxes, request.PodSandboxId)
	for id, held := range r.containers {
		if held.sandbox == request.PodSandboxId {
			delete(r.containers, id)
		}
	}
	return &cri.RemovePodSandboxResponse{}, nil
}

func (r *runtime) PodSandboxStatus(_ context.Context, request *cri.PodSandboxStatusRequest) (*cri.PodSandboxStatusResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	sandbox := r.sandboxes[request.PodSandboxId]
	if sandbox == nil {
		return nil, notFound("sandbox", request.PodSandboxId)
	}
	return &cri.PodSandboxStatusResponse{Status: sandbox}, nil
}

func (r *runtime) ListPodSandbox(_ context.Context, request *cri.ListPodSandboxRequest) (*cri.ListPodSandboxResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	answer, filter := &cri.ListPodSandboxResponse{}, request.GetFilter()
	for _, s := range r.sandboxes {
		if filter.GetId() != "" && filter.GetId() != s.Id || filter.GetState() != nil && filter.State.State != s.State ||
			!within(filter.GetLabelSelector(), s.Labels) {
			continue
		}
		answer.Items = append(answer.Items, &cri.PodSandbox{
			Id: s.Id, Metadata: s.Metadata, State: s.State, CreatedAt: s.CreatedAt, Labels: s.Labels,
			Annotations: s.Annotations, RuntimeHandler: s.RuntimeHandler,
		})
	}
	return answer, nil
}

func (r *runtime) CreateContainer(_ context.Context, request *cri.CreateContainerRequest) (*cri.CreateContainerResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	id, config := identifier(), request.Config
	image := config.GetImage().GetUserSpecifiedImage()
	if image == "" {
		image = config.GetImage().GetImage()
	}
	reference := config.GetImage().GetImage()
	if held := r.find(image); held != nil {
		reference = held.RepoDigests[0]
	}
	environment := map[string]string{}
	for _, pair := range config.Envs {
		environment[pair.Key] = string(pair.Value)
	}
	r.containers[id] = &container{sandbox: request.PodSandboxId, environment: environment, status: &cri.ContainerStatus{
		Id: id, Metadata: config.Metadata, State: cri.ContainerState_CONTAINER_CREATED, CreatedAt: time.Now().UnixNano(),
		Image: &cri.ImageSpec{Image: image}, ImageRef: reference, ImageId: config.GetImage().GetImage(), Labels: config.Labels,
		Annotations: config.Annotations, Mounts: config.Mounts, LogPath: request.GetSandboxConfig().GetLogDirectory() + "/" + config.LogPath,
	}}
	return &cri.CreateContainerResponse{ContainerId: id}, nil
}

func (r *runtime) StartContainer(_ context.Context, request *cri.StartContainerRequest) (*cri.StartContainerResponse, error) {
	time.Sleep(r.start)
	r.mutex.Lock()
	defer r.mutex.Unlock()
	held := r.containers[request.ContainerId]
	if held == nil {
		return nil, notFound("container", request.ContainerId)
	}
	held.status.State, held.status.StartedAt = cri.ContainerState_CONTAINER_RUNNING, time.Now().UnixNano()
	if held.environment["RUN_SECONDS"] != "" {
		code, _ := strconv.Atoi(held.environment["EXIT_CODE"])
		time.AfterFunc(held.seconds("RUN_SECONDS"), func() {
			r.mutex.Lock()
			defer r.mutex.Unlock()
			held.exit(int32(code))
		})
	}
	return &cri.StartContainerResponse{}, nil
}

func (c *container) exit(code int32) {
	if c.status.State != cri.ContainerState_CONTAINER_EXITED {
		c.status.State, c.status.FinishedAt, c.status.ExitCode = cri.ContainerState_CONTAINER_EXITED, time.Now().UnixNano(), code
		c.status.Reason = map[bool]string{true: "Completed", false: "Error"}[code == 0]
	}
}

func (r *runtime) StopContainer(_ context.Context, request *cri.StopContainerRequest) (*cri.StopContainerResponse, error) {
	r.mutex.Lock()
	held := r.containers[request.ContainerId]
	r.mutex.Unlock()
	if held != nil {
		time.Sleep(min(held.seconds("STOP_SECONDS"), time.Duration(request.Timeout)*time.Second))
		r.mutex.Lock()
		defer r.mutex.Unlock()
		held.exit(0)
	}
	return &cri.StopContainerResponse{}, nil
}

// ExecSync answers the command of a probe: 0 once the container has run for READY_SECONDS.
func (r *runtime) ExecSync(_ context.Context, request *cri.ExecSyncRequest) (*cri.ExecSyncResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	held := r.containers[request.ContainerId]
	if held == nil {
		return nil, notFound("container", request.ContainerId)
	}
	if time.Now().Before(time.Unix(0, held.status.StartedAt).Add(held.seconds("READY_SECONDS"))) {
		return &cri.ExecSyncResponse{ExitCode: 1}, nil
	}
	return &cri.ExecSyncResponse{}, nil
}

func (r *runtime) RemoveContainer(_ context.Context, request *cri.RemoveContainerRequest) (*cri.RemoveContainerResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	delete(r.containers, request.ContainerId)
	return &cri.RemoveContainerResponse{}, nil
}

func (r *runtime) ListContainers(_ context.Context, request *cri.ListContainersRequest) (*cri.ListContainersResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	answer, filter := &cri.ListContainersResponse{}, request.GetFilter()
	for _, held := range r.containers {
		s := held.status
		if filter.GetId() != "" && filter.GetId() != s.Id || filter.GetState() != nil && filter.State.State != s.State ||
			filter.GetPodSandboxId() != "" && filter.GetPodSandboxId() != held.sandbox || !within(filter.GetLabelSelector(), s.Labels) {
			continue
		}
		answer.Containers = append(answer.Containers, &cri.Container{
			Id: s.Id, PodSandboxId: held.sandbox, Metadata: s.Metadata, Image: s.Image, ImageRef: s.ImageRef, ImageId: s.ImageId,
			State: s.State, CreatedAt: s.CreatedAt, Labels: s.Labels, Annotations: s.Annotations,
		})
	}
	return answer, nil
}

func (r *runtime) ContainerStatus(_ context.Context, request *cri.ContainerStatusRequest) (*cri.ContainerStatusResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	held := r.containers[request.ContainerId]
	if held == nil {
		return nil, notFound("container", request.ContainerId)
	}
	return &cri.ContainerStatusResponse{Status: held.status}, nil
}

func (r *runtime) UpdateContainerResources(context.Context, *cri.UpdateContainerResourcesRequest) (*cri.UpdateContainerResourcesResponse, error) {
	return &cri.UpdateContainerResourcesResponse{}, nil
}

func (r *runtime) ListContainerStats(context.Context, *cri.ListContainerStatsRequest) (*cri.ListContainerStatsResponse, error) {
	return &cri.ListContainerStatsResponse{}, nil
}

func (r *runtime) ListPodSandboxStats(context.Context, *cri.ListPodSandboxStatsRequest) (*cri.ListPodSandboxStatsResponse, error) {
	return &cri.ListPodSandboxStatsResponse{}, nil
}

func (r *runtime) ListImages(context.Context, *cri.ListImagesRequest) (*cri.ListImagesResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	answer := &cri.ListImagesResponse{}
	for _, image := range r.images {
		answer.Images = append(answer.Images, image)
	}
	return answer, nil
}

func (r *runtime) find(name string) *cri.Image {
	if image := r.images[name]; image != nil {
		return image
	}
	for _, image := range r.images {
		if image.Id == name || image.RepoDigests[0] == name {
			return image
		}
	}
	return nil
}

func (r *runtime) ImageStatus(_ context.Context, request *cri.ImageStatusRequest) (*cri.ImageStatusResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return &cri.ImageStatusResponse{Image: r.find(request.GetImage().GetImage())}, nil
}

func (r *runtime) PullImage(_ context.Context, request *cri.PullImageRequest) (*cri.PullImageResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	image := r.find(request.GetImage().GetImage())
	if image == nil {
		image = r.addImage(request.GetImage().GetImage(), 5<<20)
	}
	return &cri.PullImageResponse{ImageRef: image.Id}, nil
}

func (r *runtime) RemoveImage(_ context.Context, request *cri.RemoveImageRequest) (*cri.RemoveImageResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if image := r.find(request.GetImage().GetImage()); image != nil {
		delete(r.images, image.RepoTags[0])
	}
	return &cri.RemoveImageResponse{}, nil
}

func (r *runtime) ImageFsInfo(context.Context, *cri.ImageFsInfoRequest) (*cri.ImageFsInfoResponse, error) {
	usage := []*cri.FilesystemUsage{{
		Timestamp: time.Now().UnixNano(), FsId: &cri.FilesystemIdentifier{Mountpoint: r.root},
		UsedBytes: &cri.UInt64Value{Value: 1 << 30}, InodesUsed: &cri.UInt64Value{Value: 1000},
	}}
	return &cri.ImageFsInfoResponse{ImageFilesystems: usage, ContainerFilesystems: usage}, nil
}

func within(wanted, labels map[string]string) bool {
	for key, value := range wanted {
		if labels[key] != value {
			return false
		}
	}
	return true
}

func notFound(kind, id string) error {
	return status.Errorf(codes.NotFound, "%s %s", kind, id)
}

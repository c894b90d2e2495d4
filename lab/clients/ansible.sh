version "$(ansible --version | sed -n 1p)"
mkdir -p "$WORK/h"; : >"$WORK/ansible.cfg"
export HOME="$WORK/h" ANSIBLE_LOCALHOST_WARNING=False ANSIBLE_HOST_KEY_CHECKING=False ANSIBLE_NOCOLOR=1 ANSIBLE_CONFIG="$WORK/ansible.cfg"
cat >"$WORK/play.yml" <<-IN
	- hosts: all
	  gather_facts: true
	  tasks:
	    - copy: {src: "$BIG", dest: "$FAR/by-ansible-{{ ansible_connection }}"}
	    - fetch: {src: "$FAR/by-ansible-{{ ansible_connection }}", dest: "$WORK/back-{{ ansible_connection }}", flat: true}
	    - command: id -un
	      register: who
	    - assert: {that: who.stdout == "$USER_"}
IN
for how in ssh paramiko; do
	printf 'web ansible_host=%s ansible_user=%s ansible_password=any ansible_connection=%s ansible_python_interpreter=/usr/bin/python3 ansible_ssh_common_args="-F none -o UserKnownHostsFile=%s -o ControlPersist=30"\n' "$ADDR" "$USER_" $how "$KNOWN" >"$WORK/inventory"
	[ $how = paramiko ] || sed -i 's/ ansible_password=any//' "$WORK/inventory"
	ansible-playbook -i "$WORK/inventory" "$WORK/play.yml" >"$WORK/out" 2>&1 || { cat "$WORK/out" >&2; die "$how"; }
	same "$how: facts, copy, fetch, command" "$BIG" "$WORK/back-$how"
done

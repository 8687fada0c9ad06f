// SPDX-License-Identifier: GPL-2.0
/*
 * Real reference faults on chosen pages. Each action is reported in the kernel log as
 * "ZDLEAK {json}", which guest/init copies to the record.
 *
 *   insmod zdleak.ko get=PFN,PFN.. put=PFN,.. set=PFN,.. set_val=N,..
 *
 * get: one reference is taken and never returned (a leak)
 * put: one reference too many is returned
 * set: _refcount of this very page, a tail too, is overwritten (what a stray write would do)
 */
#include <linux/mm.h>
#include <linux/memremap.h>
#include <linux/module.h>

static unsigned long get[64], put[64], set[64];
static int set_val[64];
static int nget, nput, nset, nval;
module_param_array(get, ulong, &nget, 0444);
module_param_array(put, ulong, &nput, 0444);
module_param_array(set, ulong, &nset, 0444);
module_param_array(set_val, int, &nval, 0444);

static void act(const char *what, unsigned long pfn, int val)
{
	struct page *p, *h;
	int before, after;

	if (!pfn_valid(pfn)) {
		pr_emerg("ZDLEAK {\"ev\":\"leak\",\"op\":\"%s\",\"pfn\":%lu,\"error\":\"invalid\"}\n", what, pfn);
		return;
	}
	p = pfn_to_page(pfn);
	h = what[0] == 's' ? p : compound_head(p);
	before = atomic_read(&h->_refcount);
	if (what[0] == 'g')
		atomic_inc(&h->_refcount);	// get_page() without its VM_BUG_ON for 0
	else if (what[0] == 'p')
		put_page(p);
	else
		atomic_set(&p->_refcount, val);
	after = atomic_read(&h->_refcount);
	pr_emerg("ZDLEAK {\"ev\":\"leak\",\"op\":\"%s\",\"pfn\":%lu,\"val\":%d,\"head_pfn\":%lu,\"before\":%d,\"after\":%d,\"zone_device\":%d}\n",
		 what, pfn, val, page_to_pfn(h), before, after, is_zone_device_page(p));
}

static int __init zdleak_init(void)
{
	int i;

	for (i = 0; i < nget; i++)
		act("get", get[i], 0);
	for (i = 0; i < nput; i++)
		act("put", put[i], 0);
	for (i = 0; i < nset && i < nval; i++)
		act("set", set[i], set_val[i]);
	return 0;
}
static void __exit zdleak_exit(void) { }
module_init(zdleak_init);
module_exit(zdleak_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("leak or over-return page references, for tests");
